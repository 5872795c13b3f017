"""Rivals on a small slice of real images: our weights in anomalib's models, repeatable, beside our systems."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import roc_auc_score

from ahl_train.benchmark import rivals
from ahl_train.benchmark.grid import Grid, run_grid
from ahl_train.benchmark.results import Cell, read_results
from ahl_train.benchmark.rivals import CHANNELS, CORESET, RIVALS, SIDE, STAGES, Rivals
from ahl_train.data.images import load, load_mask
from ahl_train.data.readers import load_dataset
from ahl_train.data.split import split
from ahl_train.data.synth import write_dataset
from ahl_train.errors import ConfigError
from ahl_train.features.backbone import Backbone, BackboneSpec, load_network

pytest.importorskip("anomalib")
CPU = torch.device("cpu")
PATCHES = (SIDE // 8) ** 2


@pytest.fixture(scope="module")
def cells(tmp_path_factory, elpv_cells):
    """12 train and 4 test normals, 4 + 4 anomalies of ELPV."""
    return elpv_cells(tmp_path_factory.mktemp("cells"), train=12, test=4)


@pytest.fixture(scope="module")
def dealt(cells):
    dataset = load_dataset(str(cells))
    return dataset, split(dataset, shots=0, seed=0, calibration=0).train_normal


@pytest.fixture(scope="module", params=sorted(RIVALS))
def rival(request):
    return request.param


@torch.inference_mode()
def test_their_features_are_ours(rival):
    model = rivals.build(rival, BackboneSpec())
    frames = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    theirs = model.feature_extractor(frames)
    ours = Backbone(load_network(BackboneSpec()), STAGES)(frames)
    assert [tuple(f.shape[-2:]) for f in theirs.values()] == [(SIDE // 8,) * 2, (SIDE // 16,) * 2]
    for found, expected in zip(theirs.values(), ours, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_frames_are_resized_and_normalised_as_anomalib_does(dealt):
    from anomalib.data.utils.image import read_image
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    _, normals = dealt
    model = rivals.build("padim", BackboneSpec())
    ours = next(Rivals(BackboneSpec(), CPU)._batches(model, normals[:2]))
    backbone = Backbone(load_network(BackboneSpec()), STAGES)
    prepare = Compose([Resize((SIDE, SIDE), antialias=True), Normalize(backbone.mean, backbone.std)])
    theirs = torch.stack([prepare(read_image(sample.path, as_tensor=True)) for sample in normals[:2]])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("bank", [300, 2_000])
def test_what_patchcore_is_fitted_to(dealt, bank, monkeypatch):
    _, normals = dealt
    monkeypatch.setattr(rivals, "BANK", bank)
    fitted = Rivals(BackboneSpec(), CPU).fit("patchcore", 0, normals[:4])
    assert fitted.memory_bank.shape == (min(bank, int(CORESET * PATCHES * 4)), 40 + 112)


@pytest.mark.slow
@torch.inference_mode()
def test_what_padim_is_fitted_to(dealt):
    _, normals = dealt
    fitted = Rivals(BackboneSpec(), CPU).fit("padim", 0, normals)
    assert fitted.gaussian.mean.shape == (CHANNELS, PATCHES)


@pytest.mark.slow
def test_the_same_scores_again_and_others_of_another_seed(dealt, rival):
    dataset, normals = dealt
    before = np.random.get_state()[1].copy()
    found = Rivals(BackboneSpec(), CPU).find(rival, 0, normals, dataset.samples)
    assert (np.random.get_state()[1] == before).all()  # numpy's own state is left as it was
    assert found.keys() == set(dataset.samples) - set(normals)
    torch.rand(3)
    np.random.random(3)
    again = Rivals(BackboneSpec(), CPU)
    assert again.find(rival, 0, normals, dataset.samples) == found
    assert again.find(rival, 1, normals, dataset.samples) != found


@pytest.mark.slow
def test_beside_our_systems_and_resumed(cells, tmp_path):
    asked = Grid(str(cells), ("general", "hard"), (0, 2), ("devnet", "padim", "patchcore"), 1, epochs=1, epoch="best")
    file = run_grid(asked, tmp_path, cache=tmp_path / "features")
    lines = read_results(tmp_path)
    aurocs = {Cell.of(line): line["auroc"] for line in lines}
    assert set(aurocs) == set(asked.cells(load_dataset(str(cells))))
    assert len({tuple(sorted(line)) for line in lines}) == 1
    assert all(line["auroc_best"] == line["auroc"] for line in lines if line["system"] in RIVALS)
    whole = file.read_text().splitlines(keepends=True)
    kept = [line for line in whole if '"padim"' not in line]
    file.write_text("".join(kept))
    run_grid(asked, tmp_path, cache=tmp_path / "features")
    assert {Cell.of(line): line["auroc"] for line in read_results(tmp_path)} == aurocs
    assert file.read_text().splitlines(keepends=True)[: len(kept)] == kept


@pytest.mark.slow
def test_a_black_bar_is_far_from_all_that_they_have_seen(cells, tmp_path, rival):
    """And without our systems no feature is extracted."""
    shutil.copytree(cells / "train", tmp_path / "bars/train")
    shutil.copytree(cells / "test/good", tmp_path / "bars/test/good")
    (tmp_path / "bars/test/bar").mkdir()
    for file in (cells / "test/good").iterdir():
        pixels = load(file).copy()
        pixels[100:140] = 0
        Image.fromarray(pixels).save(tmp_path / "bars/test/bar" / file.name)
    run_grid(Grid(str(tmp_path / "bars"), ("general",), (1,), (rival,), seeds=1), tmp_path, cache=tmp_path / "cache")
    assert [(line["system"], line["auroc"]) for line in read_results(tmp_path)] == [(rival, 1.0)]
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_after_a_training_of_ours_memory_does_not_grow(cells):
    """The coreset takes a thousand rounds of ten megabytes each."""
    code = (
        "import re, sys, torch\n"
        "from pathlib import Path\n"
        "from ahl_train import memory\n"
        "from ahl_train.features.backbone import BackboneSpec\n"
        "from ahl_train.data.readers import load_dataset\n"
        "from ahl_train.benchmark.rivals import Rivals\n"
        "memory.keep()\n"
        "Rivals(BackboneSpec(), torch.device('cpu')).fit('patchcore', 0, load_dataset(sys.argv[1]).normals[:12])\n"
        # Not getrusage's: that begins with what the tests' own process has taken.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(cells)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2000


@pytest.mark.slow
def test_their_maps_are_judged_by_the_masks(tmp_path, rival):
    data = str(write_dataset(tmp_path / "data", normals=16, anomalies=4, size=128))
    (line,) = read_results(run_grid(Grid(data, ("general",), (0,), (rival,), 1, pixel=True), tmp_path).parent)
    dataset = load_dataset(data)
    dealt = split(dataset, shots=0, seed=0, calibration=0)
    found = Rivals(BackboneSpec(), CPU, maps=True).find(rival, 0, dealt.train_normal, dataset.samples)
    small = [F.interpolate(torch.from_numpy(found[s].map)[None, None], (128, 128), mode="bilinear") for s in dealt.test]
    masks = np.stack([load_mask(s, (128, 128)) for s in dealt.test])
    expected = roc_auc_score(masks.ravel(), torch.cat(small).numpy().ravel())
    assert line["pixel_auroc"] == pytest.approx(expected, abs=1e-4)
    assert 0.5 < line["pixel_aupro"] <= 1


def test_a_network_without_such_layers(tmp_path, rival):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="finds no layers of strides 8 and 16 in 'test_vit'"):
        rivals.build(rival, BackboneSpec("test_vit", tmp_path / "weights.pth"))


def test_without_anomalib_one_line_names_the_extra():
    code = (
        "import sys; sys.modules['anomalib'] = None\n"
        "from ahl_train.benchmark.grid import Grid\n"
        "from ahl_train.errors import MissingExtraError\n"
        "Grid('elpv')\n"
        "try: Grid('elpv', systems=('devnet', 'padim'))\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "patchcore and padim need the extra [rivals]: pip install 'ahl[train,rivals]'\n"


def test_our_bench_loads_nothing_of_anomalib():
    code = "import ahl_train.benchmark.grid, ahl_train.benchmark.table, sys; sys.exit('anomalib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
