"""The figures in docs/results/export.md: of every engine, on the run's test images."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.score.scoring import Scorer
from ahl_train.data.images import load
from ahl_train.run import Run
from benchmarks.export_figures import table

pytestmark = pytest.mark.slow


def test_a_row_for_each_engine_against_float32(run: Run, full_bundle: Bundle) -> None:
    lines = table(run.folder, full_bundle).splitlines()
    rows = {cells[1].strip(" `"): [c.strip() for c in cells[2:-1]] for line in lines[5:] if (cells := line.split("|"))}
    assert next(iter(rows)) == "onnxruntime" and set(rows) == {"onnxruntime", "openvino", "onnxruntime-int8"}
    assert lines[0].startswith(f"{len(run.split.test)} test images")
    labels = [s.label for s in run.split.test]
    decisions = {}
    for name, cells in rows.items():
        scorer = Scorer(full_bundle, name, threads=1)
        made = [scorer.score(load(s)) for s in run.split.test]
        assert float(cells[0]) == pytest.approx(roc_auc_score(labels, [d.score for d in made]), abs=1e-4)
        decisions[name] = np.array([d.verdict == "reject" for d in made])
        assert int(cells[1].split()[0]) == (decisions[name] != decisions["onnxruntime"]).sum()
        assert 0 < float(cells[2]) <= float(cells[3])
    assert rows["onnxruntime"][4] == "1.00"
