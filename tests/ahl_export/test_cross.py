"""Exporting a run without held-out normals: out-of-fold scores carried over to the artefact, and an honest promise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ahl_export.artefact import _carried
from ahl_export.graph.onnx_graph import to_onnx
from ahl_export.options import ExportOptions
from ahl_export.pipeline import export
from ahl_export.verify.parity import Evidence, survey
from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.engines.ort import OrtEngine
from ahl_train.config import TrainConfig
from ahl_train.data.images import load
from ahl_train.run import Run
from ahl_train.training import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crossed(small_set: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The default system, two epochs, as it calibrates 45 train normals by itself: all of them, in five folds."""
    config = TrainConfig(str(small_set), shots=4, epochs=2)
    return train(config, tmp_path_factory.mktemp("runs") / "crossed", cache=cache)


def test_thresholds_come_from_every_normal_out_of_fold(crossed: Run, tmp_path: Path) -> None:
    export(crossed.folder, tmp_path / "crossed.ahl", ExportOptions(alpha=0.1))
    bundle = open_bundle(tmp_path / "crossed.ahl")
    first = bundle.manifest.first
    fitted = bundle.calibration(first)
    out_of_fold = sorted(score for fold in crossed.folds for score in fold.scores)
    np.testing.assert_allclose(fitted.scores, out_of_fold, rtol=2e-4, atol=2e-4)
    assert fitted.promise.kind == "cross"
    assert sorted(fitted.folds) == [9] * 5 == bundle.manifest.provenance["folds"]
    assert "an out-of-fold estimate, not a guarantee" in first.decision.promise
    assert "45 normals in 5 folds" in first.decision.promise
    assert first.decision.threshold in fitted.scores
    # The final model has seen its normals: their own scores would have set other levels.
    seen = [crossed.model.score(torch.from_numpy(load(s).copy())[None])[0].item() for s in crossed.split.train_normal]
    assert np.abs(np.sort(seen) - fitted.scores).max() > 0.01


def test_what_an_artefact_changes_is_carried_to_each_normals_score(crossed: Run) -> None:
    evidence = Evidence(crossed)
    seen = survey(OrtEngine(to_onnx(crossed.model)), evidence)
    change = np.linspace(-0.5, 0.5, len(seen.normal))
    changed = _carried(replace(seen, normal=evidence.model_scores + change), evidence)
    for fold, scores in zip(crossed.folds, changed, strict=True):
        np.testing.assert_allclose(scores - np.array(fold.scores), change[list(fold.normals)], atol=1e-9)
