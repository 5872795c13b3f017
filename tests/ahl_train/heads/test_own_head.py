"""The example of docs/how-to/own-head.md runs: its head is registered, and AHL trains it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ahl_train import systems
from ahl_train.config import Schedule
from ahl_train.method.cdl import CDL, Task

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "own-head.md"
SCHEDULE = Schedule(epochs=8, inner_steps=2, outer_steps=10, batch=24, watched=8, pseudo=None, outer_lr=0.1)


@pytest.fixture
def weighted(toy_extractor):
    """The page's base, of the toy extractor's channels."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(block, {"__name__": "own_head"})  # noqa: S102
    system = systems.system("weighted")
    assert system.ahl
    yield system.base(toy_extractor, 10)
    del systems.SYSTEMS["weighted"]


def draw(features, n, seed, shift):
    """Normals vary in the first channel, anomalies are shifted in the second."""
    coarse = features(n, seed=seed)["coarse"]
    coarse[:, 0] += 3 * torch.randn(n, 1, 1, generator=torch.Generator().manual_seed(seed))
    coarse[:, 1] += shift
    return coarse


def auroc(base, features):
    frames = torch.cat([draw(features, 40, 3, 0.0), draw(features, 40, 4, 1.5)])
    scores = base.total(base({"coarse": frames}))
    return roc_auc_score([0] * 40 + [1] * 40, scores.detach())


def test_ahl_trains_the_pages_head(weighted, features):
    normals = draw(features, 30, 0, 0.0)
    store = torch.cat([normals, draw(features, 10, 1, 1.5), draw(features, 30, 2, 1.8)])
    thirds = [np.array_split(rows, 3) for rows in (np.arange(30), np.arange(30, 40), np.arange(40, 70))]
    sets = [tuple(third[i] for third in thirds) for i in range(3)]
    tasks = [Task(sets[i], sets[(i + 1) % 3]) for i in range(3)]
    weighted.fit_normals({"coarse": normals})
    assert auroc(weighted, features) < 0.8
    cdl = CDL(weighted, tasks, lambda rows: {"coarse": store[rows]}, SCHEDULE, seed=0)
    logs = [cdl.run_epoch() for _ in range(SCHEDULE.epochs)]
    assert logs[-1].query_loss < logs[0].query_loss
    assert logs[-1].psi_loss is not None
    assert auroc(weighted.eval(), features) > 0.9


def test_its_maps(weighted, features):
    assert weighted.maps({"coarse": features(4)["coarse"]}).shape == (4, 7, 7)
