"""Where training runs, and that a GPU learns what the CPU does, without waiting in between."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ahl_train import accelerator
from ahl_train.config import Schedule
from ahl_train.errors import ConfigError
from ahl_train.heads.base import Copies
from ahl_train.heads.density import Density
from ahl_train.heads.devnet import DevNet
from ahl_train.heads.dra import winograd
from ahl_train.heads.dra.head import DRA
from ahl_train.method.cdl import CDL, Task

SCHEDULE = Schedule(epochs=7, inner_steps=2, outer_steps=2, batch=6, watched=4, pseudo=None)
ROWS = tuple(np.split(np.arange(40), [20, 30]))


def test_the_choice(monkeypatch):
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert accelerator.device().type == ("cuda" if there else "cpu")
        assert accelerator.device("cpu").type == "cpu"
    assert accelerator.device("cuda").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="choose --device cpu"):
        accelerator.device("cuda")
    with pytest.raises(ConfigError, match="'tpu': choose auto, cpu, cuda"):
        accelerator.device("tpu")


def test_the_precision():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert accelerator.precision("auto", cpu) == "float32"
    assert accelerator.precision("auto", gpu) == "float16"
    assert accelerator.precision("float16", cpu) == "float16"
    assert accelerator.precision("float32", gpu) == "float32"
    with pytest.raises(ConfigError, match="'int8': choose auto, float16, float32"):
        accelerator.precision("int8", cpu)


def test_convolutions_keep_all_bits_within_ieee_only():
    before = torch.backends.cudnn.allow_tf32
    with accelerator.ieee():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def make(kind, features):
    shapes = {name: f.shape[1:] for name, f in features(1).items()}
    return {"DevNet": lambda: DevNet(3), "DRA": lambda: DRA(3, hidden=4), "Density": lambda: Density(shapes, 10)}[
        kind
    ]()


class Watch(TorchDispatchMode):
    """Which operations a captured step must not have: they wait for the device, or send it what the host makes."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "equal", "_pin_memory")

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if (name := func.overloadpacket.__name__) in self.FORBIDDEN:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["DevNet", "DRA", "Density"])
def test_a_step_never_waits_for_the_device_nor_sends_it_anything(kind, features):
    """Seen on the CPU, by the operations that it calls: what a CUDA graph could not capture."""
    base = make(kind, features)
    base.fit(features(20), features(10, seed=1), Copies(features(8, shift=2.0)))
    frames = features(40)
    cdl = CDL(base, [Task(ROWS, ROWS)] * 3, lambda rows: {n: frames[n][rows] for n in base.inputs}, SCHEDULE, 0)
    steps = []

    def watched(function):
        def call(*given):
            with Watch() as watch:
                found = function(*given)
            steps.append(watch.found)
            return found

        return call

    cdl.run_epoch()  # what is sent once is there now
    for replay in (cdl.inner, cdl.outer):
        replay._function = watched(replay._function)
    cdl.run_epoch()
    assert steps == [set()] * (SCHEDULE.inner_steps + SCHEDULE.outer_steps)


def test_the_watch_sees_what_waits():
    with Watch() as watch:
        torch.ones(2).sum().item()
        torch.tensor([1.0])
    assert watch.found == {"_local_scalar_dense", "lift_fresh"}


@pytest.mark.parametrize("kind", ["DevNet", "DRA", "Density"])
def test_all_tensors_of_a_step_are_on_the_gpu(kind, features, monkeypatch):
    """Without one: fake tensors know their device, and refuse to be mixed."""
    monkeypatch.setattr("ahl_train.method.cdl.prior", lambda seed: (0.0, 1.0))
    monkeypatch.setattr(
        "ahl_train.method.importance.Psi", lambda models: SimpleNamespace(to=lambda d: torch.nn.Linear(1, 1))
    )
    with FakeTensorMode(allow_non_fake_inputs=True):  # constants of modules are real, on the CPU
        with torch.device("cuda"):
            base = make(kind, features)
        frames = {name: torch.empty(f.shape, dtype=torch.float16) for name, f in features(40).items()}
        reader = {n: frames[n] for n in base.inputs}
        cdl = CDL(
            base, [Task(ROWS, ROWS)] * 3, lambda rows: {n: f[: len(rows)] for n, f in reader.items()}, SCHEDULE, 0
        )
        monkeypatch.setattr(cdl, "_sent", lambda array: torch.from_numpy(array).to("cuda"))
        (batch,) = cdl._batches([task.support for task in cdl.tasks], 1, np.random.default_rng(0))
        stacked = {name: p.expand(3, *p.shape) for name, p in base.named_parameters()}
        found = (cdl._losses(stacked, batch), cdl._watch(stacked))
    for kept in (winograd._band, winograd._matrices):
        kept.cache_clear()
    assert [tensor.device.type for tensor in found] == ["cuda"] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("replayed", [True, False])
@pytest.mark.parametrize("kind", ["DevNet", "DRA", "Density"])
def test_a_gpu_learns_what_the_cpu_does(kind, replayed, features):
    frames = features(40)
    torch.manual_seed(0)
    base = make(kind, features)
    base.fit(features(20), features(10, seed=1), Copies(features(8, shift=2.0)))
    scores = {}
    for device in ("cpu", "cuda"):
        own = copy.deepcopy(base).to(device)
        cdl = CDL(own, [Task(ROWS, ROWS)] * 3, lambda rows: {n: frames[n][rows] for n in base.inputs}, SCHEDULE, 0)
        if not replayed:
            cdl.inner.refused = cdl.outer.refused = "not to be replayed"
        for _ in range(SCHEDULE.epochs):
            cdl.run_epoch()
        assert not replayed or (cdl.inner.refused, cdl.outer.refused) == (None, None)
        there = {name: f.to(device) for name, f in frames.items()}
        own.fit_norms(there)
        scores[device] = own.eval().total(own(there)).detach().cpu()
    torch.testing.assert_close(scores["cuda"], scores["cpu"], rtol=1e-2, atol=1e-2)
