"""A GPU learns what the CPU does: losses of a short schedule, and the scores that come of it."""

import json
from dataclasses import replace

import numpy as np
import torch
from common import CPU, Ask, Result, bar, few, open_extractor
from sklearn.metrics import roc_auc_score

from ahl_train.config import TrainConfig
from ahl_train.data.readers import Dataset
from ahl_train.data.split import split
from ahl_train.features import Extractor, FeatureStore, Item
from ahl_train.method.fit import learn
from ahl_train.run import RunFolder
from ahl_train.systems import SYSTEMS, system

# Adam makes a whole step of what rounding leaves of a gradient of nothing, whichever way: scores agree in spreads.
_LOSS = 0.01  # relative
_SCORE = 0.1  # of the normals' standard deviation
_AUROC = 0.003


def measure(ask: Ask) -> Result:
    """By system, both devices on float32 features of their own: largest differences; `bars`."""
    dataset, there = open_extractor(ask.data, ask.device)
    here = Extractor(there.spec, there.supersample).eval()
    dataset = replace(dataset, samples=few(dataset, *((32, 12) if ask.small else (160, 60))))
    names = [name for name, chosen in SYSTEMS.items() if chosen.ahl]
    found = {name: _compare(name, ask, dataset, here, there) for name in names}
    worst = {key: max(one[key] for one in found.values()) for key in ("loss", "score", "auroc")}
    bars = [
        bar("query loss, relative difference", worst["loss"], _LOSS),
        bar("score, difference in spreads of normals", worst["score"], _SCORE),
        bar("AUROC, difference", worst["auroc"], _AUROC),
    ]
    return {"systems": found, "bars": bars}


def _compare(name: str, ask: Ask, dataset: Dataset, here: Extractor, there: Extractor) -> Result:
    shots = 4
    dealt = split(dataset, shots=shots, seed=0, calibration=0)
    config = TrainConfig(ask.data, system=name, shots=shots, schedule="short", epochs=1 if ask.small else 3)
    labels = np.array([sample.label for sample in dealt.test])
    losses, scores = [], []
    for extractor in (here, there):
        where = "cpu" if extractor is here else "device"
        store = FeatureStore(ask.folder / where, extractor)
        folder = RunFolder(ask.folder / f"{name}-{where}")
        folder.path.mkdir()
        torch.manual_seed(0)
        base = system(name).base(extractor, shots)
        learn(base, config, dealt, store, ahl=True, folder=folder)
        lines = (folder.path / "metrics.jsonl").read_text().splitlines()
        losses.append(np.array([json.loads(line)["query_loss"] for line in lines]))
        # Both score the CPU's features: what differs is what was learned.
        test = FeatureStore(ask.folder / "cpu", here)
        with torch.inference_mode():
            read = test.read(test.rows([Item(sample) for sample in dealt.test]), base.inputs)
            scores.append(base.total(base.to(CPU)(read)).numpy())
    spread = scores[0][labels == 0].std()
    return {
        "title": system(name).title,
        "epochs": config.steps.epochs,
        "loss": float(np.max(np.abs(losses[1] - losses[0]) / np.abs(losses[0]))),
        "score": float(np.max(np.abs(scores[1] - scores[0])) / spread),
        "auroc": float(abs(roc_auc_score(labels, scores[1]) - roc_auc_score(labels, scores[0]))),
    }
