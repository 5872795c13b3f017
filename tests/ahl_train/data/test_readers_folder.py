"""A user's folder in MVTec AD layout, MVTec AD itself, and ELPV from its package or a folder."""

import sys

import numpy as np
import pytest
from PIL import Image

from ahl_train.data.readers import load_dataset
from ahl_train.data.split import split
from ahl_train.errors import DataError


def draw(path, size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0]), 90, np.uint8)).save(path)


@pytest.fixture
def carpet(tmp_path):
    """One category, as MVTec AD is published, at a tenth of the number."""
    root = tmp_path / "mvtec" / "carpet"
    for i in range(6):
        draw(root / "train" / "good" / f"{i:03}.png")
    for kind, count in {"good": 3, "hole": 2, "cut": 4}.items():
        for i in range(count):
            draw(root / "test" / kind / f"{i:03}.png")
            if kind != "good":
                draw(root / "ground_truth" / kind / f"{i:03}_mask.png")
    for other in ("readme.txt", "license.txt"):
        (root / other).write_text("words")
    return root


def test_a_category(carpet):
    data = load_dataset(f"mvtec:{carpet}")
    assert data.name == "mvtec/carpet"
    assert "NC" in data.licence
    assert data.counts() == {"cut": 4, "good": 9, "hole": 2}
    assert data.classes == ("cut", "hole")
    assert [s.split for s in data.normals].count("train") == 6
    for s in data.anomalies:
        assert s.mask == carpet / "ground_truth" / s.kind / f"{s.path.stem}_mask.png"
        assert s.mask.is_file()
    assert all(s.mask is None for s in data.normals)


def test_the_folder_of_all_categories_asks_for_one(carpet):
    with pytest.raises(DataError, match=r"name one, e\.g\. mvtec:.*carpet"):
        load_dataset(f"mvtec:{carpet.parent}")


def test_a_plain_folder_with_little_in_it(tmp_path):
    for i in range(8):
        draw(tmp_path / "train" / "good" / f"shot {i}.JPG")
    draw(tmp_path / "test" / "scratch" / "x.bmp")
    (tmp_path / "train" / "good" / ".DS_Store").write_text("")
    (tmp_path / "train" / "good" / "notes.txt").write_text("")
    data = load_dataset(str(tmp_path))
    assert data.name == tmp_path.name
    assert data.counts() == {"good": 8, "scratch": 1}
    dealt = split(data, shots=1, seed=0)
    assert (len(dealt.train_normal), len(dealt.calibration_normal), len(dealt.test)) == (4, 2, 2)


def test_only_normals(tmp_path):
    draw(tmp_path / "train" / "good" / "0.png")
    data = load_dataset(str(tmp_path))
    assert split(data, shots=0, seed=0).train_normal == data.normals
    with pytest.raises(DataError, match="there are 0 anomalies"):
        split(data, shots=1, seed=0)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda root: draw(root / "test" / "hole" / "0.png"), r"no folder train/good"),
        (lambda root: (root / "train" / "good").mkdir(parents=True), r"no normal images under .*good"),
    ],
)
def test_a_folder_without_normals_is_refused(tmp_path, prepare, says):
    prepare(tmp_path)
    with pytest.raises(DataError, match=says):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize("spec", ["nowhere", "nosuchset:somewhere", ""])
def test_an_unknown_set_names_the_choices(spec):
    with pytest.raises(DataError, match="give elpv, a folder, or NAME:DIR"):
        load_dataset(spec)


def test_elpv_is_complete():
    data = load_dataset("elpv")
    assert data.counts() == {"good": 1508, "mono": 313, "poly": 402}
    assert all(s.path.is_file() for s in data.samples)
    assert "CC BY-NC-SA" in data.licence


def test_elpv_from_a_folder(tmp_path):
    lines = [
        "images/cell0001.png  1.0  mono",
        "images/cell0002.png  0.33  poly",
        "",
        "images/cell0003.png  0.0 poly",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = load_dataset(f"elpv:{tmp_path}")
    assert [(s.path.name, s.kind) for s in data.samples] == [
        ("cell0001.png", "mono"),
        ("cell0003.png", "good"),
    ]
    (tmp_path / "labels.csv").write_text("images/cell0001.png 1.0 mono\nimages/cell0002.png")
    with pytest.raises(DataError, match="line 2"):
        load_dataset(f"elpv:{tmp_path}")
    with pytest.raises(DataError, match=r"no labels\.csv"):
        load_dataset(f"elpv:{tmp_path / 'images'}")


def test_elpv_without_its_package_says_how_to_get_it(monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "elpv_dataset"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("ahl_train.data.readers.elpv.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'ahl\[demo\]'"):
        load_dataset("elpv")
