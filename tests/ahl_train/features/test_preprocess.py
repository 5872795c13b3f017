"""Preprocessing: torch's resize and the normalisation by hand, at both scales, whatever the frame's shape."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ahl_train.features.preprocess import Preprocess, choose_supersample

MEAN, STD = (0.485, 0.5, 0.4), (0.229, 0.25, 0.5)


def frames(*shape, n=2, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, *shape, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def normalised(x):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x / 255 - mean) / std


@pytest.mark.parametrize("shape", [(300, 300), (448, 448), (90, 700), (641, 17)])
def test_fine_is_torchs_resize_normalised(shape):
    image = frames(*shape)
    fine, _ = Preprocess(64, MEAN, STD)(image)
    expected = F.interpolate(image.permute(0, 3, 1, 2).float(), size=(64, 64), mode="bilinear")
    torch.testing.assert_close(fine, normalised(expected), atol=1e-5, rtol=1e-5)


def test_a_large_frame_is_mean_pooled_from_a_supersampled_resize():
    image = frames(500, 400)
    fine, _ = Preprocess(64, MEAN, STD, supersample=4)(image)
    expected = F.interpolate(image.permute(0, 3, 1, 2).float(), size=(256, 256), mode="bilinear")
    expected = expected.reshape(2, 3, 64, 4, 64, 4).mean((3, 5))
    torch.testing.assert_close(fine, normalised(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("supersample", [1, 3])
def test_coarse_is_the_mean_pooled_fine(supersample):
    fine, coarse = Preprocess(64, MEAN, STD, supersample)(frames(200, 130))
    assert coarse.shape == (2, 3, 32, 32)
    torch.testing.assert_close(coarse, fine.reshape(2, 3, 32, 2, 32, 2).mean((3, 5)))


def test_channels_keep_their_order():
    image = torch.zeros(1, 20, 30, 3, dtype=torch.uint8)
    image[..., 0] = 255
    fine, _ = Preprocess(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(image)
    torch.testing.assert_close(fine[0].mean((1, 2)), torch.tensor([1.0, 0.0, 0.0]))


def test_a_frame_of_the_networks_size_keeps_its_pixels():
    image = frames(32, 32)
    fine, _ = Preprocess(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(image)
    torch.testing.assert_close(fine, image.permute(0, 3, 1, 2) / 255)


@pytest.mark.parametrize(
    ("longer_side", "factor"), [(17, 1), (300, 1), (896, 1), (897, 2), (1792, 2), (1793, 3), (4000, 5)]
)
def test_the_supersampling_skips_no_pixel(longer_side, factor):
    assert choose_supersample([(longer_side, 40)], 448) == factor
    assert choose_supersample([(40, longer_side)], 448) == factor
    assert longer_side / (factor * 448) <= 2


def test_the_median_frame_decides():
    assert choose_supersample([(9000, 9000), (300, 300), (200, 300)], 448) == 1
    assert choose_supersample(iter([(2000, 100), (300, 300), (100, 2000)]), 448) == 3


def test_a_single_bright_pixel_of_a_large_frame_is_seen_wherever_it_lies():
    """The reason for supersampling: a bilinear tap without antialiasing would skip most of them."""
    preprocess = Preprocess(16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), choose_supersample([(128, 128)], 16))
    for place in range(128):
        image = torch.zeros(1, 128, 128, 3, dtype=torch.uint8)
        image[0, place, 127 - place] = 255
        assert preprocess(image)[0].sum() > 0
