"""Measure what each part of AHL(Density) adds on several data sets, and the limit of learning: docs/results/method.md.

python -m benchmarks.ablation docs/results/method.md [--data DATA]... [--seeds N] [--cache DIR]
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ahl_train.benchmark.grid import chunks, deal, scores
from ahl_train.benchmark.page import insert, write_into
from ahl_train.benchmark.results import Cell
from ahl_train.config import TrainConfig
from ahl_train.data.images import load_dataset
from ahl_train.data.readers import Sample
from ahl_train.data.split import Split
from ahl_train.features import Extractor, FeatureStore, default_cache, supersample_for
from ahl_train.features.backbone import BackboneSpec
from ahl_train.heads.base import Base
from ahl_train.heads.density import PRIOR_LIKENESS, Density
from ahl_train.method.fit import learn
from ahl_train.rng import Stream, integer
from ahl_train.systems import system

MARKERS = ("<!-- ablation: written by python -m benchmarks.ablation -->", "<!-- /ablation -->")
SHOTS = (0, 1, 10)
# The columns of the evidence of `Density`.
_POOLED, _DENSITIES, _ALONG, _LIKENESSES = range(2), range(5), range(5, 9), range(5, 13)
_LIMIT = "the best weights in hindsight, fitted on the test images"
# Name, the columns that are added, and their weights: equal, from the seen anomalies (fusion), learned by AHL.
_ROWS: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("densities of pooled statistics", (*_POOLED,), "equal"),
    ("+ memories of patches", (*_DENSITIES,), "equal"),
    ("+ likeness of pooled statistics", (*_DENSITIES, *_ALONG), "equal"),
    ("+ likeness of patches", (*_DENSITIES, *_LIKENESSES), "equal"),
    ("+ weighed by pasted patches and left-out anomalies", (*_DENSITIES, *_LIKENESSES), "fusion"),
    ("+ factors learned by AHL: AHL(Density)", (*_DENSITIES, *_LIKENESSES), "learned"),
)
_ADDED = ("ahl-devnet",)  # heads that AHL learns, added to AHL(Density)
_SHARE = 0.3  # the weight of their score in the sum; both scores in standard deviations of the test normals
Figures = dict[tuple[str, str, int], list[float]]  # AUROC of each seed, by row, data set and shots


class Bench:
    """A data set, split as in the paper's general setting, and the extractor and store for its runs."""

    def __init__(self, data: str, cache: Path) -> None:
        self.data, self.dataset = data, load_dataset(data)
        self.extractor = Extractor(BackboneSpec(), supersample_for(self.dataset.normals))
        self.store = FeatureStore(cache, self.extractor)

    def measure(self, shots: int, seed: int) -> Iterator[tuple[str, float]]:
        """Row name and AUROC on the test images. The rows of learned heads exist only with shots."""
        dealt = deal(Cell("ahl-density", "general", None, shots, seed), self.dataset)
        labels = np.array([s.label for s in dealt.test])
        base = self._learned("ahl-density", shots, dealt)
        assert isinstance(base, Density)
        evidence = self._evidence(base, dealt.test)
        equal = np.r_[np.ones(len(_DENSITIES)), np.full(len(_LIKENESSES), shots / (shots + PRIOR_LIKENESS))]
        fusion, factors = base.fusion.numpy(), base.weight.detach().numpy()
        weights = {"equal": equal, "fusion": fusion, "learned": fusion * factors}
        for name, columns, kind in _ROWS:
            kept = [column for column in columns if column < evidence.shape[1]]
            yield name, _auroc(labels, evidence[:, kept] @ weights[kind][kept])
        total = evidence @ weights["learned"]
        for name in _ADDED if shots else ():
            added = scores(self._learned(name, shots, dealt), self.store, dealt.test)
            mixed = _standard(total, labels) + _SHARE * _standard(added, labels)
            yield _combined(name), _auroc(labels, mixed)
        limit = LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000).fit(evidence, labels)
        yield _LIMIT, _auroc(labels, evidence @ limit.coef_[0])

    def _learned(self, name: str, shots: int, dealt: Split) -> Base:
        chosen = system(name)
        torch.manual_seed(integer(dealt.seed, Stream.WEIGHTS))
        config = TrainConfig(self.data, system=name, shots=shots, seed=dealt.seed, calibration=0)
        base = chosen.base(self.extractor, shots)
        learn(base, config, dealt, self.store, ahl=chosen.ahl)
        return base

    @torch.inference_mode()
    def _evidence(self, base: Density, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """The evidence of N samples, float32 [N, K]."""
        return torch.cat([base.prepare(f)["evidence"] for f in chunks(base, self.store, samples)]).numpy()


def _combined(name: str) -> str:
    return f"AHL(Density) and {_SHARE} of {system(name).title}"


def _auroc(labels: NDArray[np.int64], score: NDArray[np.floating]) -> float:
    return float(roc_auc_score(labels, score))


def _standard(score: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.floating]:
    """The scores in standard deviations from the mean of the normals."""
    normal = score[labels == 0]
    standard: NDArray[np.floating] = (score - normal.mean()) / normal.std()
    return standard


def table(figures: Figures) -> str:
    """A Markdown table: one row per part, one column per data set and their mean, cells of 0, 1 and 10 shots."""
    sets = list(dict.fromkeys(data for _, data, _ in figures))
    lines = [f"| shots {' / '.join(map(str, SHOTS))} | mean | {' | '.join(sets)} |", f"|{'---|' * (len(sets) + 2)}"]
    for name in [*(name for name, *_ in _ROWS), *map(_combined, _ADDED), _LIMIT]:
        of_set = {(data, n): np.mean(found) for data in sets for n in SHOTS if (found := figures.get((name, data, n)))}
        columns = [of_set, *({(d, n): v for (d, n), v in of_set.items() if d == data} for data in sets)]
        lines.append(f"| {name} | {' | '.join(map(_cell, columns))} |")
    return "\n".join(lines) + "\n"


def _cell(of_set: dict[tuple[str, int], np.floating]) -> str:
    """The mean over some data sets for each number of shots."""
    found = ([value for (_, n), value in of_set.items() if n == shots] for shots in SHOTS)
    return " / ".join(f"{np.mean(values):.3f}" if values else "–" for values in found)


def main() -> None:
    """Measure, and write the table between the markers of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", help="as for ahl train; may be repeated; default: elpv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("document", type=Path)
    asked = parser.parse_args()
    insert(asked.document, "", MARKERS)  # fails before minutes of work if the page has no markers
    figures: Figures = defaultdict(list)
    with Progress() as progress:
        for data in progress.track(asked.data or ["elpv"], description="data sets"):
            bench = Bench(data, asked.cache or default_cache())
            for shots, seed in product(SHOTS, range(asked.seeds)):
                for name, value in bench.measure(shots, seed):
                    figures[name, bench.dataset.name, shots].append(value)
    text = f"AUROC on the test images, general setting, mean of {asked.seeds} seeds:\n\n{table(figures)}"
    write_into(asked.document, text, MARKERS)


if __name__ == "__main__":
    main()
