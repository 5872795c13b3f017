"""Pseudo anomalies: what changes lies in the mask, the mask is never empty, the seed decides, it is quick."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahl_train.errors import DataError
from ahl_train.features.pseudo_anomalies import AUGMENTATIONS, perlin_mask, perlin_noise, random_texture


def photo(height, width, seed=0, grey=False):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 1 if grey else 3), dtype=np.uint8)
    return np.repeat(image, 3, axis=2) if grey else image


@pytest.mark.parametrize("name", AUGMENTATIONS)
@settings(max_examples=40, deadline=None)
@given(height=st.integers(16, 90), width=st.integers(16, 90), grey=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_only_the_mask_changes(name, height, width, grey, seed):
    image, donor = photo(height, width, grey=grey), photo(50, 70, 1)
    before = image.copy()
    out, mask = AUGMENTATIONS[name](image, np.random.default_rng(seed), donor)
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert mask.shape == (height, width)
    assert mask.dtype == bool
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(out[~mask], image[~mask])
    assert (out[mask] != image[mask]).any()
    if grey:
        assert (out == out[..., :1]).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_seed_decides(name):
    image, donor = photo(64, 64), photo(64, 64, 1)
    first, again, other = (AUGMENTATIONS[name](image, np.random.default_rng(seed), donor) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_wrong_arrays_are_refused(name):
    good = photo(64, 64)
    for bad in (good[..., 0], good.astype(np.float32), good[:15], np.concatenate([good, good], axis=2)):
        with pytest.raises(DataError, match=r"uint8 \[H, W, 3\]"):
            AUGMENTATIONS[name](bad, np.random.default_rng(0), good)


def test_cutmix_takes_the_donor_and_cutpaste_the_image():
    dark, bright = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    for seed in range(20):
        mixed, mask = AUGMENTATIONS["cutmix"](dark, np.random.default_rng(seed), bright)
        assert mixed[mask].min() > 150
        assert 0.01 < mask.mean() < 0.2
        pasted, mask = AUGMENTATIONS["cutpaste"](dark, np.random.default_rng(seed), bright)
        assert pasted[mask].max() < 60


def test_cutpaste_gives_boxes_and_scars():
    shares = [AUGMENTATIONS["cutpaste"](photo(256, 256), np.random.default_rng(seed))[1].mean() for seed in range(60)]
    scars = sum(share < 0.01 for share in shares)
    assert 15 < scars < 45
    assert max(shares) > 0.05


def test_draem_blends_at_an_opacity_between_image_and_texture():
    dark, bright = np.full((64, 64, 3), 40, np.uint8), photo(64, 64, 3)
    strengths = []
    for seed in range(30):
        out, mask = AUGMENTATIONS["draem"](dark, np.random.default_rng(seed), bright)
        strengths.append(np.abs(out[mask].astype(int) - 40).mean())
    assert max(strengths) > 3 * min(strengths)


def test_perlin_noise_equals_its_definition():
    """Against the textbook loop: four corners, gradient dot distance, quintic fade."""
    shape, cells = (24, 36), (3, 4)
    noise = perlin_noise(shape, cells, np.random.default_rng(5))
    angle = np.random.default_rng(5).uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    fade = lambda t: 6 * t**5 - 15 * t**4 + 10 * t**3  # noqa: E731
    expected = np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            y, x = (i + 0.5) * cells[0] / shape[0], (j + 0.5) * cells[1] / shape[1]
            top, left = int(y), int(x)
            u, v = fade(y - top), fade(x - left)
            for r, weight_r in ((top, 1 - u), (top + 1, u)):
                for c, weight_c in ((left, 1 - v), (left + 1, v)):
                    dot = np.sin(angle[r, c]) * (y - r) + np.cos(angle[r, c]) * (x - c)
                    expected[i, j] += weight_r * weight_c * dot
    np.testing.assert_allclose(noise, np.sqrt(2) * expected, atol=1e-5)


def test_perlin_masks_differ_in_scale_and_are_never_slight():
    masks = [perlin_mask((128, 96), np.random.default_rng(seed)) for seed in range(50)]
    shares = [m.mean() for m in masks]
    assert min(shares) >= 0.02
    assert max(shares) < 0.7
    edges = [np.count_nonzero(np.diff(m, axis=1)) for m in masks]
    assert max(edges) > 10 * min(edges)


def test_a_texture_is_a_changed_donor():
    donor = photo(40, 60)
    textures = [random_texture(donor, np.random.default_rng(seed)) for seed in range(10)]
    assert all(t.shape == donor.shape and t.dtype == np.uint8 for t in textures)
    assert all((t != donor).mean() > 0.5 for t in textures)


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_ten_milliseconds_for_a_solar_cell(name):
    image, donor, rng = photo(300, 300), photo(300, 300, 1), np.random.default_rng(0)
    times = []
    for _ in range(30):
        start = time.thread_time()
        AUGMENTATIONS[name](image, rng, donor)
        times.append(time.thread_time() - start)
    assert min(times) < 0.01
