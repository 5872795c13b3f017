"""A function of tensors as one CUDA graph; on a CPU, and where it cannot be captured, it is called."""

import pytest
import torch

from ahl_train.method.replay import Replay


def doubled(tensors, factor):
    return [tensors["a"] * factor, tensors["a"].sum()]


def test_on_a_cpu_it_is_the_function():
    replay = Replay(doubled)
    for value in (1.0, 2.0):
        found = replay({"a": torch.full((3,), value)}, 2)
        assert [f.tolist() for f in found] == [[2 * value] * 3, 3 * value]
    assert replay.refused is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_replays_it_on_new_values():
    calls = []

    def function(tensors, factor):
        calls.append(None)
        return doubled(tensors, factor)

    replay = Replay(function)
    for value in (1.0, 2.0, 3.0):
        found = replay({"a": torch.full((3,), value, device="cuda")}, 2)
        assert [f.tolist() for f in found] == [[2 * value] * 3, 3 * value]
    assert replay.refused is None
    assert len(calls) == 3  # two to warm up, one that is captured


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_waits_for_the_gpu_is_called():
    replay = Replay(lambda tensors, factor: [tensors["a"] * tensors["a"].sum().item()])
    for value in (1.0, 2.0):
        (found,) = replay({"a": torch.full((3,), value, device="cuda")}, 2)
        assert found.tolist() == [3 * value**2] * 3
    assert replay.refused
