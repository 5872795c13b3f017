"""AUROC of a finished run, and of its pixels, against scikit-learn on all pixels at once."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from ahl_export.cli import app
from ahl_train.config import TrainConfig
from ahl_train.errors import DataError, RunError
from ahl_train.evaluate import evaluate, pixel_auroc
from ahl_train.images import load
from ahl_train.synth import write_dataset
from ahl_train.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """DevNet on a textured set that has masks."""
    root = tmp_path_factory.mktemp("synth")
    data = write_dataset(root / "data", normals=30, anomalies=8, size=128)
    config = TrainConfig(str(data), system="devnet", shots=2, epochs=1, calibration=0)
    return train(config, root / "run", cache=root / "cache")


@pytest.mark.slow
def test_a_run_and_its_pixels(run):
    found = evaluate(run.folder, pixel=True)
    test = run.split.test
    assert (found.images, found.anomalies, found.masked) == (len(test), 6, 6)
    scores = [run.model.score(torch.from_numpy(load(s).copy())[None])[0].item() for s in test]
    assert found.auroc == pytest.approx(roc_auc_score([s.label for s in test], scores))
    assert 0 <= found.pixel_auroc <= 1
    assert evaluate(run.folder).pixel_auroc is None


@pytest.mark.slow
def test_the_command(run):
    done = CliRunner().invoke(app, ["evaluate", str(run.folder), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout).keys() == {"images", "anomalies", "auroc"}


@pytest.mark.slow
def test_without_masks(run, tmp_path):
    split = json.loads((run.folder / "split.json").read_text())
    for name in ("run.json", "model.pt"):
        (tmp_path / name).write_bytes((run.folder / name).read_bytes())
    split["test"] = [{k: v for k, v in sample.items() if k != "mask"} for sample in split["test"]]
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.raises(DataError, match="none of its 6 test anomalies has a mask"):
        evaluate(tmp_path, pixel=True)


def test_no_run(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(tmp_path)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_pixels_as_scikit_learn_has_them(scale):
    rng = np.random.default_rng(0)
    masks = [rng.random((30 + i, 44)) < 0.2 for i in range(4)]
    maps = [(scale * (rng.standard_normal((7, 7)) + 2 * mask[:28:4, :42:6])).astype(np.float32) for mask in masks]
    fine = [
        F.interpolate(torch.from_numpy(m)[None, None], k.shape, mode="bilinear")
        for m, k in zip(maps, masks, strict=True)
    ]
    expected = roc_auc_score(np.concatenate([m.ravel() for m in masks]), torch.cat([f.ravel() for f in fine]).numpy())
    assert pixel_auroc(maps, iter(masks)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("value", "said"), [(1.0, "both"), (np.nan, "not finite")])
def test_pixels_that_cannot_be_judged(value, said):
    with pytest.raises(DataError, match=said):
        pixel_auroc([np.full((7, 7), value, np.float32)], [np.zeros((9, 9), bool)])
