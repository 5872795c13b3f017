"""Images: pixels of ELPV and of made files, crops, masks, and files that cannot be read."""

import numpy as np
import pytest
from PIL import Image

from ahl_runtime.core import decode
from ahl_train.data import samples as base
from ahl_train.data.images import Dataset, Sample, load, load_dataset, load_mask, usable, verify
from ahl_train.errors import DataError


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png", pixels


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_solar_cell():
    image = load(load_dataset("elpv").samples[0])
    assert image.shape == (300, 300, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5


def test_a_path_and_a_crop(picture):
    path, pixels = picture
    np.testing.assert_array_equal(load(path), pixels)
    patch = load(Sample(path, 0, "good", crop=(10, 5, 30, 40)))
    np.testing.assert_array_equal(patch, pixels[5:40, 10:30])


@pytest.mark.parametrize("crop", [(0, 0, 61, 10), (-1, 0, 5, 5), (10, 0, 10, 5)])
def test_a_crop_outside_is_refused(picture, crop):
    with pytest.raises(DataError, match="60 x 40"):
        load(Sample(picture[0], 0, "good", crop=crop))


def test_masks(picture, tmp_path):
    path, _ = picture
    drawn = np.zeros((40, 60), np.uint8)
    drawn[10:20, 30:35] = 1  # some sets draw in 1, some in 255
    Image.fromarray(drawn).save(tmp_path / "m.png")
    mask = load_mask(Sample(path, 1, "hole", tmp_path / "m.png"), (40, 60))
    np.testing.assert_array_equal(mask, drawn > 0)
    patch = load_mask(Sample(path, 1, "hole", tmp_path / "m.png", crop=(32, 0, 52, 40)), (40, 20))
    assert patch.sum() == 30
    assert not load_mask(Sample(path, 0, "good"), (40, 60)).any()
    assert load_mask(Sample(path, 1, "hole"), (40, 60)) is None
    with pytest.raises(DataError, match="its image"):
        load_mask(Sample(path, 1, "hole", tmp_path / "m.png"), (20, 60))
    with pytest.raises(DataError, match=r"m\.png cannot be read"):
        load_mask(Sample(path, 1, "hole", cut_short(tmp_path / "m.png")), (40, 60))


def test_unreadable_files_are_named_not_fatal(picture, tmp_path):
    path, pixels = picture
    Image.fromarray(pixels).save(tmp_path / "b.png")
    cut_short(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("not an image")
    samples = [
        Sample(path, 0, "good"),
        Sample(tmp_path / "b.png", 0, "good"),
        Sample(tmp_path / "c.png", 0, "good"),
        Sample(tmp_path / "gone.png", 0, "good"),
        Sample(path, 1, "hole", crop=(0, 0, 30, 30)),
        Sample(path, 1, "hole", crop=(40, 0, 70, 30)),
    ]
    good, bad = verify(samples)
    assert list(good) == [samples[0], samples[4]]
    assert [u.sample for u in bad] == [samples[1], samples[2], samples[3], samples[5]]
    assert "b.png" in str(bad[0])
    with pytest.raises(DataError, match=r"b\.png"):
        load(tmp_path / "b.png")


def test_a_group_without_one_readable_file_is_fatal(picture, tmp_path):
    path, pixels = picture
    Image.fromarray(pixels).save(tmp_path / "b.png")
    cut_short(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"none of the 1 anomalous images can be read.*b\.png"):
        verify([Sample(path, 0, "good"), Sample(tmp_path / "b.png", 1, "hole")])
    good, bad = verify([Sample(path, 0, "good")])
    assert list(good) == [Sample(path, 0, "good")] and not bad


def test_copies_are_left_out_and_named(picture, tmp_path):
    """Under another name and in another format too: the pixels count. A picture may be of two classes."""
    path, pixels = picture
    Image.fromarray(pixels).save(tmp_path / "copy.bmp")
    for name in ("other", "odd", "both"):
        pixels = 255 - pixels if name != "odd" else pixels // 2
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    both, odd, other = (tmp_path / f"{name}.png" for name in ("both", "odd", "other"))
    both.write_bytes(odd.read_bytes())
    kept = (Sample(path, 0, "good"), Sample(other, 1, "hole"), Sample(other, 1, "crack"))
    twice = (Sample(tmp_path / "copy.bmp", 0, "good"), Sample(odd, 0, "good"), Sample(both, 1, "hole"))
    found, lines = usable(Dataset("some", (*kept, *twice), tmp_path))
    assert found.samples == kept
    assert lines == [
        f"the same image as {path}: {tmp_path / 'copy.bmp'}",
        f"the same image is marked normal and anomalous: {odd}",
        f"the same image is marked normal and anomalous: {both}",
    ]


def test_the_decoder_reads_what_the_readers_list():
    assert decode.SUFFIXES == base.SUFFIXES
