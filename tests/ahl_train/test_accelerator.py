"""Where training runs, and that a GPU learns what the CPU does."""

import copy

import numpy as np
import pytest
import torch

from ahl_train import accelerator
from ahl_train.cdl import CDL, Task
from ahl_train.config import Schedule
from ahl_train.errors import ConfigError
from ahl_train.heads.devnet import DevNet
from ahl_train.heads.dra import DRA


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [DevNet, DRA])
def test_a_gpu_learns_what_the_cpu_does(kind, features):
    frames = features(40)
    rows = tuple(np.split(np.arange(40), [20, 30]))
    schedule = Schedule(epochs=7, inner_steps=2, outer_steps=2, batch=6, watched=4, pseudo=None)
    torch.manual_seed(0)
    scores = {}
    base = kind(3)
    for device in ("cpu", "cuda"):
        own = copy.deepcopy(base).to(device)
        there = {name: f.to(device) for name, f in frames.items()}
        cdl = CDL(own, [Task(rows, rows)] * 3, lambda r, there=there: {n: f[r] for n, f in there.items()}, schedule, 0)
        for _ in range(schedule.epochs):
            cdl.run_epoch()
        own.fit_norms(there)
        scores[device] = own.eval().total(own(there)).detach().cpu()
    torch.testing.assert_close(scores["cuda"], scores["cpu"], rtol=1e-2, atol=1e-2)
