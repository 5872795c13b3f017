"""The bundle that an export writes, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ahl_export import pipeline as assemble
from ahl_export.errors import ExportError
from ahl_export.options import ExportOptions
from ahl_export.pipeline import export
from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.score.scoring import Scorer
from ahl_train.config import TrainConfig
from ahl_train.data.images import load
from ahl_train.data.readers import Sample
from ahl_train.errors import RunError
from ahl_train.run import Run
from ahl_train.training import train
from calibration import SettingsError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "small.ahl"
    export(run.folder, out, ExportOptions(alpha=0.1))
    return out


def test_scores_on_the_device_are_the_models(run: Run, bundle: Path) -> None:
    scorer = Scorer(open_bundle(bundle))
    for sample in run.split.test[:5]:
        pixels = load(sample)
        wanted, _, _ = run.model.score(torch.from_numpy(pixels.copy())[None])
        assert scorer.score(pixels).score == pytest.approx(wanted.item(), abs=1e-3, rel=1e-4)


def test_rates_that_are_none_are_refused_before_the_run_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"alpha is 1\.5: expected a number above 0 and below 1"):
        export(tmp_path / "no-run", tmp_path / "out.ahl", ExportOptions(alpha=1.5))


def test_calibrated_on_the_held_out_normals_alone(run: Run, bundle: Path) -> None:
    opened = open_bundle(bundle)
    scorer = Scorer(opened)
    scores = sorted(scorer.score(load(s)).score for s in run.split.calibration_normal)
    np.testing.assert_allclose(opened.calibration(opened.manifest.first).scores, scores, atol=1e-4)
    assert opened.manifest.first.decision.threshold == opened.calibration(opened.manifest.first).threshold
    used = {s.path for s in (*run.split.train_normal, *run.split.train_anomaly, *run.split.test)}
    assert not used & {s.path for s in run.split.calibration_normal}


def test_manifest_says_how_it_was_made(run: Run, bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert manifest.provenance["settings"]["shots"] == 4
    assert manifest.first.parity is not None and manifest.first.parity.score_max < 1e-4
    assert manifest.provenance["counts"] == {"train_normal": 25, "calibration_normal": 20, "train_anomaly": 4}
    assert tuple(manifest.graph.heads) == run.model.head_names
    assert len(manifest.first.reference) == 3
    assert str(Path.home()) not in manifest.model_dump_json()


def test_normals_alone_are_enough(small_set: Path, cache: Path, tmp_path: Path) -> None:
    """A line's first day: there is no image of a defect anywhere."""
    shutil.copytree(small_set / "train", tmp_path / "cells" / "train")
    config = TrainConfig(str(tmp_path / "cells"), shots=0, calibration=15)
    run = train(config, tmp_path / "run", cache=cache)
    opened = export(run.folder, tmp_path / "none.ahl", ExportOptions(alpha=0.1, openvino=True))
    for artefact in opened.manifest.artefacts:
        scorer = Scorer(opened, artefact.engine)
        for sample in run.split.test[:3]:
            pixels = load(sample)
            wanted, _, _ = run.model.score(torch.from_numpy(pixels.copy())[None])
            assert scorer.score(pixels).score == pytest.approx(wanted.item(), abs=1e-2, rel=1e-3)
    defect = next((small_set / "test" / "crack").iterdir())
    assert scorer.score(load(Sample(defect, 1, "crack"))).score > opened.manifest.first.decision.threshold


def test_too_few_normals_for_alpha_says_what_would_do(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"you have 20: .*--alpha 0\.048 or more, --tail") as error:
        export(run.folder, tmp_path / "x.ahl", ExportOptions(alpha=0.01))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_disagrees_is_not_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = assemble.to_onnx

    def tampered(model: torch.nn.Module) -> bytes:
        bias = model.extractor.preprocess.bias
        kept = bias.clone()
        bias += 0.01  # the drift that a second preprocessing brings
        try:
            return real(model)
        finally:
            bias.copy_(kept)

    monkeypatch.setattr(assemble, "to_onnx", tampered)
    with pytest.raises(ExportError, match="disagrees with the model"):
        export(run.folder, tmp_path / "x.ahl", ExportOptions(alpha=0.1))
    assert list(tmp_path.iterdir()) == []


def test_unfinished_and_foreign_runs_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        export(tmp_path, tmp_path / "x.ahl")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run.folder, unfinished)
    (unfinished / "model.pt").unlink()
    with pytest.raises(RunError, match="--resume"):
        export(unfinished, tmp_path / "x.ahl")


def test_an_unknown_setting_of_a_newer_version_is_named(run: Run, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(run.folder, newer)
    record = json.loads((newer / "run.json").read_text())
    record["settings"]["warp"] = 9
    (newer / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"no setting 'warp'.*update ahl"):
        export(newer, tmp_path / "x.ahl")


@pytest.mark.parametrize("out", ["missing/x.ahl", "."])
def test_a_place_that_cannot_be_written_fails_first(run: Run, tmp_path: Path, out: str) -> None:
    with pytest.raises(ExportError, match="cannot be written"):
        export(run.folder, tmp_path / out)
