"""Measure accuracy and time of each artefact of a bundle on the run's test images, for docs/results/export.md.

python -m benchmarks.export_figures RUN BUNDLE docs/results/export.md
"""

import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import process_time

import numpy as np
from sklearn.metrics import roc_auc_score

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.core.machine import cpu
from ahl_runtime.engines.base import CheckedEngine
from ahl_train.benchmark.page import write_into
from ahl_train.data.images import load
from ahl_train.run import RunFolder

MARKERS = ("<!-- figures: written by `make export-figures` -->", "<!-- /figures -->")
_COLUMNS = ("engine", "AUROC", "decisions that differ", "CPU ms p50", "CPU ms p99", "times as fast", "MB")
_PACKAGES = ("onnxruntime", "openvino")


@dataclass
class _Column:
    """One engine on the test images, on one thread. `milliseconds`: CPU time, which other programs hardly change."""

    name: str
    engine: CheckedEngine
    threshold: float
    size: int
    scores: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


def table(run: Path, bundle: Bundle) -> str:
    """The table of all engines that can run here. They take turns at each test image, under the same conditions."""
    samples = RunFolder(run).load_split().test
    columns = [_column(bundle, name) for name in engines.available(bundle)]
    columns.sort(key=lambda c: c.name != bundle.manifest.first.engine)
    for sample in samples:
        pixels = load(sample)[None]
        for column in columns:
            started = process_time()
            score = column.engine.infer(pixels).score[0]
            column.milliseconds.append(1e3 * (process_time() - started))
            column.scores.append(float(score))
    labels = [s.label for s in samples]
    first = columns[0]
    rejected = np.array(first.scores) > first.threshold
    rows = []
    for c in columns:
        p50, p99 = np.quantile(c.milliseconds, (0.5, 0.99))
        flips = int(((np.array(c.scores) > c.threshold) != rejected).sum())
        rows.append(
            f"| `{c.name}` | {roc_auc_score(labels, c.scores):.4f} | {flips} ({flips / len(labels):.2%}) | {p50:.1f} | "
            f"{p99:.1f} | {np.median(first.milliseconds) / p50:.2f} | {c.size / 1e6:.1f} |"
        )
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{len(labels)} test images of {bundle.manifest.provenance['settings']['data']}, one thread of an {cpu()}, "
        f"{versions};\ndecisions against float32's, each by its own threshold:\n\n"
        f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n" + "\n".join(rows) + "\n"
    )


def _column(bundle: Bundle, name: str) -> _Column:
    artefact = engines.artefact(bundle, name)
    size = sum(bundle.manifest.members[file].size for file in artefact.files)
    return _Column(name, engines.load(bundle, name, 1), artefact.decision.threshold, size)


if __name__ == "__main__":
    write_into(Path(sys.argv[3]), table(Path(sys.argv[1]), open_bundle(Path(sys.argv[2]))), MARKERS)
