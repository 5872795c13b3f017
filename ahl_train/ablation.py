"""What each part of AHL+ adds on ELPV, where it was chosen and where it is tested: into docs/method.md.

python -m ahl_train.ablation [--seeds N] [--cache DIR] docs/method.md

It was chosen on cells that the protocol leaves out: those of defect probability 2/3 stand for anomalies, against a
quarter of the train normals that is held out. No test image has a part in it.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ahl_train.backbone import BackboneSpec
from ahl_train.benchmark import deal
from ahl_train.benchmark_results import Cell
from ahl_train.config import TrainConfig
from ahl_train.datasets import Dataset, Sample
from ahl_train.datasets.elpv import doubtful
from ahl_train.features import Extractor, FeatureStore, Item, default_cache, supersample_for
from ahl_train.heads.plus import Plus
from ahl_train.images import load_dataset
from ahl_train.learn import learn
from ahl_train.page import insert, write_into
from ahl_train.protocol import split

MARKERS = ("<!-- ablation: written by python -m ahl_train.ablation -->", "<!-- /ablation -->")
_DENSITIES, _POOLED, _PATCHES = (0, 1, 2, 3), (4, 5), (6, 7)
# Name, clusters, parts that are added up (of `_parts`), whether AHL has learned their weights.
_ROWS: tuple[tuple[str, int, tuple[int, ...], bool], ...] = (
    ("density of the last stage, pooled", 1, (0,), False),
    ("+ of the stage before, and of patches", 1, _DENSITIES, False),
    ("+ standardised within clusters", 3, _DENSITIES, False),
    ("+ likeness to seen anomalies, pooled", 3, (*_DENSITIES, *_POOLED), False),
    ("+ likeness of patches", 3, (*_DENSITIES, *_POOLED, *_PATCHES), False),
    ("+ weights learned by AHL: AHL+", 3, (*_DENSITIES, *_POOLED, *_PATCHES), True),
)
_COLUMNS = (("general", 1), ("general", 10), ("hard", 1), ("hard", 10))
Figures = dict[tuple[str, tuple[str, int]], list[float]]


def cells(seed: int) -> Iterator[Cell]:
    """Both settings of ELPV, 1 and 10 shots."""
    for setting, seen_class in (("general", None), ("hard", "mono"), ("hard", "poly")):
        for shots in (1, 10):
            yield Cell("ahl-plus", setting, seen_class, shots, seed)


def trial(dataset: Dataset, seed: int) -> Dataset:
    """A seed's train normals and the doubtful cells: the protocol deals it out as it does a dataset."""
    normals = split(dataset, shots=0, seed=seed, calibration=0).train_normal
    return replace(dataset, name="elpv, doubtful cells", samples=(*normals, *doubtful()))


def measure(store: FeatureStore, extractor: Extractor, dataset: Dataset, seed: int, figures: Figures) -> None:
    """Add the AUROC of every row on a dataset's test images, for one seed."""
    plain: Tensor | None = None  # without clusters there are densities only, which depend on no anomaly
    for cell in cells(seed):
        dealt = deal(cell, dataset)
        torch.manual_seed(seed)
        channels = extractor.channels, extractor.before_channels, extractor.middle_channels
        base = Plus(*channels, cell.shots)
        learn(base, TrainConfig("elpv", shots=cell.shots, seed=seed, calibration=0), dealt, store, ahl=True)
        learned = _parts(base, store, dealt.test)
        with torch.no_grad():
            base.weight.fill_(1.0)
        start = _parts(base, store, dealt.test)
        if plain is None:
            one = Plus(*channels, 0, clusters=1)
            alone = TrainConfig("elpv", shots=0, seed=seed, calibration=0)
            learn(one, alone, replace(dealt, train_anomaly=()), store, ahl=True)
            everything = [s for s in dataset.samples if s not in set(dealt.train_normal)]
            plain = _parts(one, store, everything)
            row_of = {s: i for i, s in enumerate(everything)}
        rows = [row_of[s] for s in dealt.test]
        labels = [s.label for s in dealt.test]
        for name, clusters, columns, is_learned in _ROWS:
            parts = plain[rows] if clusters == 1 else learned if is_learned else start
            score = parts[:, list(columns)].sum(1)
            figures[name, (cell.setting, cell.shots)].append(float(roc_auc_score(labels, score.numpy())))


@torch.inference_mode()
def _parts(base: Plus, store: FeatureStore, samples: Sequence[Sample]) -> Tensor:
    """float [N, 8], the likenesses as the score has them."""
    rows = store.rows([Item(s) for s in samples])
    prepared = [base.prepare(store.read(rows[i : i + 64], base.inputs)) for i in range(0, len(rows), 64)]
    density = torch.cat([p["density"] for p in prepared])
    seen = torch.cat([base.seen(p) for p in prepared]) if base.shots else torch.zeros_like(density)
    return torch.cat([density, base.trust * seen], dim=1)


def table(chosen: Figures, tested: Figures) -> str:
    """Markdown."""
    head = ("", *(f"{where}, {s} {n}" for where in ("chosen", "test") for s, n in _COLUMNS))
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, *_ in _ROWS:
        means = (np.mean(figures[name, column]) for figures in (chosen, tested) for column in _COLUMNS)
        lines.append(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the table between its markers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("document", type=Path)
    asked = parser.parse_args()
    insert(asked.document, "", MARKERS)  # before the minutes: is there a place for it?
    dataset = load_dataset("elpv")
    extractor = Extractor(BackboneSpec(), supersample_for(dataset.normals))
    store = FeatureStore(asked.cache or default_cache(), extractor)
    chosen: Figures = defaultdict(list)
    tested: Figures = defaultdict(list)
    with Progress() as progress:
        for seed in progress.track(range(asked.seeds), description="seeds"):
            measure(store, extractor, trial(dataset, seed), seed, chosen)
            measure(store, extractor, dataset, seed, tested)
    text = f"AUROC, mean of {asked.seeds} seeds:\n\n{table(chosen, tested)}"
    write_into(asked.document, text, MARKERS)


if __name__ == "__main__":
    main()
