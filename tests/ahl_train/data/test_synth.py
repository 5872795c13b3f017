"""The made set: it reads as MVTec AD layout, defects lie in their masks, and it is whole or absent."""

import numpy as np
import pytest
from PIL import Image

from ahl_train.data.images import load, load_mask
from ahl_train.data.readers import load_dataset
from ahl_train.data.split import split
from ahl_train.data.synth import DEFECTS, make_anomaly, make_normal, write_dataset
from ahl_train.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("synth") / "set", normals=16, anomalies=11, seed=3, size=64)


def test_it_is_read_as_a_folder(made):
    data = load_dataset(str(made))
    assert data.counts() == {"crack": 2, "good": 16, "scratch": 3, "spots": 2, "stain": 2, "worn": 2}
    dealt = split(data, shots=1, seed=0, setting="hard", seen_class="worn")
    assert len([s for s in dealt.test if s.label == 0]) == 4
    assert load(data.samples[0]).shape == (64, 64, 3)
    for sample in data.anomalies:
        assert 0 < load_mask(sample, (64, 64)).mean() < 0.2
    assert [p.name for p in made.parent.iterdir()] == ["set"]


def test_the_seed_decides_and_a_larger_set_begins_with_the_smaller(made, tmp_path):
    larger = write_dataset(tmp_path / "larger", normals=20, anomalies=15, seed=3, size=64)
    other = write_dataset(tmp_path / "other", normals=4, anomalies=1, seed=4, size=64)
    for file in made.rglob("*.png"):
        assert file.read_bytes() == (larger / file.relative_to(made)).read_bytes()
    first = "train/good/00000.png"
    assert (other / first).read_bytes() != (made / first).read_bytes()


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_differs_from_its_texture_inside_the_mask(kind):
    """The same generator state gives the texture; far from the mask the pixels keep its statistics."""
    inside, outside = [], []
    for seed in range(12):
        image, mask = make_anomaly(kind, 128, np.random.default_rng(seed))
        assert mask.any()
        grey = image.astype(float)
        level, spread = grey[~mask].mean(), grey[~mask].std()
        inside.append(max(abs(grey[mask].mean() - level) / spread, 1 - grey[mask].std() / spread))
        outside.append(spread)
    assert np.median(inside) > 0.5
    assert 15 < np.median(outside) < 32


def test_textures_are_of_several_kinds():
    edges = []
    for seed in range(24):
        image = make_normal(64, np.random.default_rng(seed)).astype(float)
        edges.append(np.abs(np.diff(image, axis=0)).mean() / np.abs(np.diff(image, axis=1)).mean())
    assert min(edges) < 0.8 < 0.9 < max(edges)


@pytest.mark.parametrize("wrong", [{"normals": 0}, {"anomalies": -1}, {"size": 16}, {"seed": -1}])
def test_counts_that_make_no_set_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match="synth"):
        write_dataset(tmp_path / "set", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, normals=1, anomalies=0, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    saved, real = [], Image.Image.save

    def save(self, path, *args, **kwargs):
        if len(saved) == 5:
            raise OSError(28, "No space left on device")
        saved.append(path)
        real(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(DataError, match="No space left"):
        write_dataset(tmp_path / "set", normals=8, anomalies=4, size=32)
    assert len(saved) == 5
    assert not list(tmp_path.iterdir())
