"""Small stand-ins that several tests share: random features, an extractor without a network."""

import hashlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ahl_train.heads.layers import pool_statistics

CHANNELS, MIDDLE = 3, 2


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def make_features(n, seed=0, shift=0.0):
    """What features.Extractor gives for n frames, of few channels."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(n, *shape, generator=generator) + shift

    middle = draw(MIDDLE, 14, 14)
    return {
        "fine": draw(CHANNELS, 14, 14),
        "coarse": draw(CHANNELS, 7, 7),
        "middle": middle,
        "pooled": pool_statistics(draw(MIDDLE, 14, 14)),
    }


@pytest.fixture
def features():
    return make_features


class ToyExtractor(nn.Module):
    """Stands in for features.Extractor: features are sums of pixels. Counts the frames that it has seen."""

    channels, middle_channels = CHANNELS, MIDDLE

    def __init__(self, weights="one", supersample=1):
        super().__init__()
        self.spec = SimpleNamespace(name="toy", digest=hashlib.sha256(weights.encode()).hexdigest())
        self.supersample, self.seen = supersample, 0

    def forward(self, image):
        self.seen += len(image)
        level = image.float().mean((1, 2)) / 255  # [N, 3]
        coarse = level[:, :, None, None] + torch.arange(49.0).view(1, 1, 7, 7) / 49
        fine = nn.functional.interpolate(coarse, scale_factor=2)
        return {
            "fine": fine,
            "coarse": coarse,
            "middle": fine[:, :MIDDLE],
            "pooled": pool_statistics(coarse[:, :MIDDLE]),
        }


@pytest.fixture
def toy_extractor():
    return ToyExtractor
