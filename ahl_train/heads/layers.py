"""Layers that the bases share: pure, so that T copies of them run as one batch."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ahl_train.heads.base import Features


class PointScore(nn.Module):
    """A 1x1 convolution from C channels to ``outputs`` score maps."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(channels)
        self.weight = nn.Parameter(torch.empty(outputs, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """float [N, C, h, w] to [N, outputs, h, w]."""
        # As a matrix product, which vmap batches well.
        return (self.weight @ maps.flatten(2) + self.bias[:, None]).unflatten(2, maps.shape[-2:])


class BatchNorm(nn.Module):
    """Batch norm with the batch's statistics in training and, in evaluation, those that ``fit`` set.

    Running averages would be a state that changes while T copies are adapted.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))
        self.eps = eps

    def forward(self, maps: Tensor) -> Tensor:
        """float [N, C, h, w], normalised per channel."""
        mean, var = _moments(maps) if self.training else (self.mean, self.var)
        scale = self.weight * (var + self.eps).rsqrt()
        return maps * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]

    @torch.no_grad()
    def fit(self, maps: Tensor) -> None:
        """Take the statistics of evaluation from float [N, C, h, w]."""
        self.mean, self.var = _moments(maps)


def _moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel."""
    mean = maps.mean((0, 2, 3))
    return mean, (maps - mean[:, None, None]).square().mean((0, 2, 3))


def mean_of_scales(score: Callable[[Tensor], Tensor], features: Features) -> Tensor:
    """Score the fine and the coarse maps alike and average (METHOD, Base models)."""
    return (score(features["fine"]) + score(features["coarse"])) / 2


def map_of_scales(score: Callable[[Tensor], Tensor], features: Features) -> Tensor:
    """Maps [N, 1, h, w] of both scales, averaged at the fine one's size: float [N, h, w]."""
    fine, coarse = score(features["fine"]), score(features["coarse"])
    return ((fine + nn.functional.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")) / 2)[:, 0]


def pool_statistics(maps: Tensor) -> Tensor:
    """float [N, C, h, w] to [N, 3 C]: mean, standard deviation and maximum over the positions."""
    flat = maps.flatten(2)
    mean = flat.mean(2)
    # Written out, since exporters disagree about the correction that torch.std applies.
    std = (flat - mean.unsqueeze(2)).square().mean(2).clamp_min(1e-12).sqrt()
    return torch.cat([mean, std, flat.amax(2)], dim=1)
