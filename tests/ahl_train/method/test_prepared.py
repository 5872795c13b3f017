"""Samples as heads take them: by place, as a table or read anew, from a reader that writes over what it gave."""

import numpy as np
import pytest
import torch

from ahl_train.heads.devnet import DevNet
from ahl_train.method.prepared import Samples, widened

ROWS = np.array([7, 3, 3, 12, 5])
CPU = torch.device("cpu")


class Passing(DevNet):
    """Prepares by handing on what it was given, without a copy."""

    def prepare(self, features):
        return {"coarse": features["coarse"], "level": features["coarse"].mean((-2, -1))}


@pytest.fixture
def reader(features):
    """One room for all calls of a size, as the store's; maps as half floats."""
    known = {name: features(20)[name].half() for name in ("fine", "coarse")}
    rooms = {}

    def read(rows):
        for name, values in known.items():
            rooms.setdefault((name, len(rows)), torch.empty_like(values[rows])).copy_(values[rows])
        return {name: rooms[name, len(rows)] for name in known}

    return known, read


@pytest.mark.parametrize("base", [DevNet, Passing])
def test_samples_are_those_of_their_rows(base, reader, monkeypatch):
    monkeypatch.setattr("ahl_train.method.prepared._CHUNK", 1)
    known, read = reader
    samples = Samples(base(3), read, ROWS, CPU)
    wanted = np.array([[12, 5], [3, 7]])
    found = samples.at(torch.from_numpy(samples.places(wanted)))
    assert found["coarse"].dtype == torch.float32
    torch.testing.assert_close(found["coarse"], known["coarse"].float()[wanted])


def test_rows_that_the_base_was_fitted_on_are_taken_as_its_fit_gave_them(reader):
    """Of rows in any order; a row that is not among the samples is left out."""
    known, read = reader
    fitted = np.array([5, 19, 7])
    given = {name: torch.full((3, *values.shape[1:]), 9.0) for name, values in known.items() if name == "coarse"}
    given["level"] = torch.tensor([[5.0], [19.0], [7.0]]).expand(3, 3)
    samples = Samples(Passing(3), read, ROWS, CPU, (fitted, given))
    found = samples.at(torch.from_numpy(samples.places(np.array([3, 5, 7, 12]))))["level"]
    assert found[1].tolist() == [5.0] * 3 and found[2].tolist() == [7.0] * 3
    torch.testing.assert_close(found[[0, 3]], known["coarse"][[3, 12]].float().mean((-2, -1)))


def test_only_half_floats_are_widened():
    kept = {"half": torch.ones(2, dtype=torch.float16), "double": torch.ones(2, dtype=torch.float64)}
    assert {name: f.dtype for name, f in widened(kept).items()} == {"half": torch.float32, "double": torch.float64}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [0, 1 << 30])
def test_a_gpu_keeps_what_it_has_room_for(reader, resident, monkeypatch):
    monkeypatch.setattr("ahl_train.method.prepared._RESIDENT", resident)
    known, read = reader
    samples = Samples(DevNet(3), read, ROWS, torch.device("cuda"))
    found = samples.at(torch.from_numpy(samples.places(ROWS)).cuda())
    assert (samples._table is None) == (resident == 0)
    torch.testing.assert_close(found["fine"].cpu(), known["fine"].float()[ROWS])
