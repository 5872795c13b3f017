"""Layers that the bases share: pure, so that T copies of them run as one batch."""

import math
from collections.abc import Callable, ItemsView, ValuesView
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.features.maps import Features

_Kind = TypeVar("_Kind", bound=nn.Module)


class Modules(nn.ModuleDict, Generic[_Kind]):
    """A ModuleDict whose modules all have one class, which type checkers know."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> _Kind: ...
        def items(self) -> ItemsView[str, _Kind]: ...
        def values(self) -> ValuesView[_Kind]: ...


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
        scores: Tensor = (self.weight @ maps.flatten(2) + self.bias[:, None]).unflatten(2, maps.shape[-2:])
        return scores

    def channels_last(self, maps: Tensor) -> Tensor:
        """The same, for maps with channels last in memory and samples before them."""
        return (maps.permute(2, 3, 0, 1) @ self.weight.T + self.bias).permute(2, 3, 0, 1)


class BatchNormRelu(nn.Module):
    """Batch norm and ReLU. Training uses the batch's statistics; evaluation uses those that ``fit`` set.

    Running averages would be a state that changes while T copies adapt.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))
        self.eps = eps

    def forward(self, maps: Tensor, times: Tensor | None = None) -> Tensor:
        """float [N, C, h, w], normalised per channel, and no less than 0.

        `times`: how often each sample counts, float [N]; None: once.
        """
        if self.training:
            times = maps.new_ones(len(maps)) if times is None else times.to(maps.dtype)
            found: Tensor
            found, _, _ = _BatchNormRelu.apply(maps.permute(2, 3, 0, 1), times, self.weight, self.bias, self.eps)
            return found.permute(2, 3, 0, 1)
        scale = self.weight * (self.var + self.eps).rsqrt()
        return F.relu(maps * scale[:, None, None] + (self.bias - self.mean * scale)[:, None, None])

    @torch.no_grad()
    def fit(self, maps: Tensor) -> None:
        """Set the evaluation statistics from float [N, C, h, w]."""
        self.mean = maps.mean((0, 2, 3))
        self.var = (maps - self.mean[:, None, None]).square().mean((0, 2, 3))


class _BatchNormRelu(torch.autograd.Function):
    """Batch norm and ReLU of float [h, w, N, C], with a third of the memory passes of autograd's own steps."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, times: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        share, rows = _shares(times, maps), maps.flatten(0, 2)
        centred = rows - share @ rows
        inverse = (share @ centred.square() + eps).rsqrt()  # of the standard deviation
        found = torch.addcmul(bias, centred, weight * inverse).relu_()
        return found.unflatten(0, maps.shape[:3]), centred, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, times, weight, _, _ = inputs
        found, centred, inverse = output
        ctx.mark_non_differentiable(centred, inverse)
        ctx.save_for_backward(found, centred, inverse, times, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        found, centred, inverse, times, weight = ctx.saved_tensors
        share, rows = _shares(times, found), (gradient * (found > 0)).flatten(0, 2)
        of_bias = rows.sum(0)
        along = (rows * centred).sum(0)
        # dx = s (dz - share (sum dz + x / var sum(dz x))), x centred, s its scale (Ioffe and Szegedy 2015, 3).
        back = torch.addcmul(of_bias, centred, along * inverse.square()).mul_(share[:, None])
        back = rows.sub_(back).mul_(weight * inverse)
        return back.unflatten(0, found.shape[:3]), None, along * inverse, of_bias, None


def _shares(times: Tensor, maps: Tensor) -> Tensor:
    """The weight of each position of [h, w, N, C] in a mean over all positions, float [h w N]."""
    return (times / (times.sum() * maps.shape[0] * maps.shape[1])).expand(maps.shape[:3]).flatten()


def mean_of_scales(score: Callable[[Tensor], Tensor], features: Features) -> Tensor:
    """Score the fine and the coarse maps alike and average (METHOD, Base models)."""
    return (score(features["fine"]) + score(features["coarse"])) / 2


def map_of_scales(score: Callable[[Tensor], Tensor], features: Features) -> Tensor:
    """Maps [N, 1, h, w] of both scales, averaged at the fine one's size: float [N, h, w]."""
    fine, coarse = score(features["fine"]), score(features["coarse"])
    return ((fine + F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")) / 2)[:, 0]
