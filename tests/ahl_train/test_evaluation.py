"""AUROC of a finished run; of its pixels, AUROC as scikit-learn and AUPRO as anomalib have them."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anomalib.metrics.aupro import _AUPRO
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from ahl_export.cli.main import app
from ahl_train.api import evaluate
from ahl_train.config import TrainConfig
from ahl_train.data.images import load
from ahl_train.data.synth import write_dataset
from ahl_train.errors import DataError, RunError
from ahl_train.evaluation import FPR_LIMIT, pixels
from ahl_train.training import train


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
    assert 0 <= found.pixel_aupro <= 1
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
    with pytest.raises(DataError, match="its 6 test anomalies have no masks"):
        evaluate(tmp_path, pixel=True)


def test_no_run(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(tmp_path)


@pytest.fixture(scope="module")
def pictures():
    """Maps, masks of several regions in most, and the maps upsampled."""
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.random((8, 11)) < 0.1, np.ones((6, 4))).astype(bool) for _ in range(4)]
    masks[2][:] = False
    maps = [(rng.standard_normal((8, 8)) + 2 * mask[::6, :32:4]).astype(np.float32) for mask in masks]
    return (
        maps,
        masks,
        torch.stack([F.interpolate(torch.from_numpy(m)[None, None], (48, 44), mode="bilinear")[0, 0] for m in maps]),
    )


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_pixels_as_others_have_them(pictures, scale):
    maps, masks, fine = pictures
    reference = _AUPRO(fpr_limit=FPR_LIMIT)
    reference.update(fine, torch.from_numpy(np.stack(masks)).int())
    auroc, aupro = pixels([scale * m for m in maps], iter(masks))
    assert auroc == pytest.approx(roc_auc_score(np.stack(masks).ravel(), fine.ravel()), abs=1e-5)
    assert aupro == pytest.approx(reference.compute().item(), abs=1e-4)


def test_overlap_by_hand():
    # Regions of 1 and 3 pixels; the false positives of 6 good pixels come after the small one and after half.
    mask = np.array([[1, 0, 0, 0, 0], [0, 0, 1, 1, 1]], bool)
    scores = np.array([[9, 8, 1, 1, 1], [1, 1, 7, 0, 0]], np.float32)
    # Overlap (1 + 0) / 2 up to rate 1/6, then (1 + 1/3) / 2 until all other good pixels come, at rate 1.
    step = 1 / 6
    _, aupro = pixels([scores], [mask])
    assert aupro == pytest.approx((step * 0.5 + (FPR_LIMIT - step) * 4 / 6) / FPR_LIMIT, abs=1e-6)


@pytest.mark.parametrize(("value", "said"), [(1.0, "both"), (np.nan, "not finite")])
def test_pixels_that_cannot_be_judged(value, said):
    with pytest.raises(DataError, match=said):
        pixels([np.full((7, 7), value, np.float32)], [np.zeros((9, 9), bool)])
