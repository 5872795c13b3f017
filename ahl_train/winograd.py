"""3x3 convolution by Winograd's minimal filtering (Lavin and Gray 2015, arXiv 1509.09308), of T models at once.

A quarter to a third of the multiplications of a direct convolution, where maps are small and channels many. It goes
through the frames in portions that stay in the CPU's cache; a training step is bound by memory otherwise.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)  # and infinity; the first m + 1 of them for tiles of m x m
_PORTION = 128  # tiles


def conv3x3(maps: Tensor, weight: Tensor) -> Tensor:
    """float [N, C, h, w] and [O, C, 3, 3] to [N, O, h, w]: F.conv2d with padding 1.

    In float32 to 1e-4, in values around 1.
    """
    return _Convolution.apply(maps[None], weight[None])[0]


class _Convolution(torch.autograd.Function):
    """Of T models: maps [T or 1, N, C, h, w] and weights [T, O, C, 3, 3] to [T, N, O, h, w]."""

    @staticmethod
    def forward(maps: Tensor, weight: Tensor) -> Tensor:
        plan = _Plan(maps)
        found = maps.new_empty(len(weight), maps.shape[1], weight.shape[1], *maps.shape[3:])
        for t, filters in enumerate(plan.filters(weight)):
            for start, data in plan.portions(maps[t % len(maps)]):
                plan.write(found[t, start:], data @ filters.transpose(1, 2))
        return found

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        maps, weight = ctx.saved_tensors
        plan = _Plan(maps)
        of_weight = torch.empty_like(weight)
        for t in range(len(weight)):
            filters = maps.new_zeros(plan.points**2, *weight.shape[1:3])
            for start, data in plan.portions(maps[t % len(maps)]):
                filters.baddbmm_(plan.read(grad[t, start:], data.shape[1]).transpose(1, 2), data)
            of_weight[t] = (plan.filter.T @ filters.flatten(1)).T.view_as(weight[t])
        of_maps = None
        if ctx.needs_input_grad[0]:
            each = [F.conv_transpose2d(g, w, padding=1) for g, w in zip(grad, weight, strict=True)]
            of_maps = torch.stack(each).sum_to_size(maps.shape)
        return of_maps, of_weight

    @staticmethod
    def vmap(info, in_dims, maps, weight):  # type: ignore[no-untyped-def]
        """Models that vmap stacks become models of the one T; maps that they share stay one."""
        if in_dims[0] is not None:
            maps = maps.movedim(in_dims[0], 0).flatten(0, 1)
        weight = weight.expand(info.batch_size, *weight.shape) if in_dims[1] is None else weight.movedim(in_dims[1], 0)
        return _Convolution.apply(maps, weight.flatten(0, 1)).unflatten(0, (info.batch_size, -1)), 0


class _Plan:
    """How maps of this size are cut into tiles of m x m, each from (m + 2) x (m + 2) pixels of the frame."""

    def __init__(self, maps: Tensor) -> None:
        self.height, self.width = maps.shape[3:]
        self.tile = min((4, 5), key=lambda m: _tiles(self.height, m) * _tiles(self.width, m) * (m + 2) ** 2)
        self.points = self.tile + 2
        self.down, self.right = _tiles(self.height, self.tile), _tiles(self.width, self.tile)
        self.data, self.filter, self.result = (
            torch.kron(m, m).to(maps.device, maps.dtype) for m in _matrices(self.tile)
        )

    def filters(self, weight: Tensor) -> Iterator[Tensor]:
        """[T, O, C, 3, 3], one model after the other: [points squared, O, C]."""
        for own in weight:
            yield (self.filter @ own.reshape(-1, 9).T).view(-1, *own.shape[:2])

    def portions(self, maps: Tensor) -> Iterator[tuple[int, Tensor]]:
        """[N, C, h, w] as some frames after the others: the first one's number, and [points squared, tiles, C]."""
        step = max(1, _PORTION // (self.down * self.right))
        for start in range(0, len(maps), step):
            some = maps[start : start + step]
            below, beyond = self.down * self.tile + 1 - self.height, self.right * self.tile + 1 - self.width
            # Channels last: all copies are of whole rows.
            padded = F.pad(some.permute(0, 2, 3, 1), (0, 0, 1, beyond, 1, below))
            tiles = padded.unfold(1, self.points, self.tile).unfold(2, self.points, self.tile)
            flat = tiles.permute(4, 5, 0, 1, 2, 3).reshape(self.points**2, -1)
            yield start, (self.data @ flat).view(self.points**2, -1, maps.shape[1])

    def write(self, found: Tensor, products: Tensor) -> None:
        """Products [points squared, tiles, O] become the first frames of [N, O, h, w]."""
        m, frames = self.tile, products.shape[1] // (self.down * self.right)
        values = (self.result @ products.flatten(1)).view(m, m, frames, self.down, self.right, -1)
        whole = values.permute(2, 5, 3, 0, 4, 1).reshape(frames, -1, self.down * m, self.right * m)
        found[:frames] = whole[:, :, : self.height, : self.width]

    def read(self, grad: Tensor, tiles: int) -> Tensor:
        """The gradients of so many products, [points squared, tiles, O], from those of frames, [N, O, h, w]."""
        m, frames = self.tile, tiles // (self.down * self.right)
        below, beyond = self.down * m - self.height, self.right * m - self.width
        padded = F.pad(grad[:frames].permute(0, 2, 3, 1), (0, 0, 0, beyond, 0, below))
        values = padded.unflatten(2, (self.right, m)).unflatten(1, (self.down, m)).permute(2, 4, 0, 1, 3, 5)
        return (self.result.T @ values.reshape(m * m, -1)).view(self.points**2, tiles, -1)


def _tiles(size: int, tile: int) -> int:
    return -(-size // tile)


@cache
def _matrices(tile: int) -> tuple[Tensor, Tensor, Tensor]:
    """What takes data, filter and products there and back, in one dimension, by the Cook-Toom construction."""
    points = np.array(_POINTS[: tile + 1])
    others = [np.delete(points, i) for i in range(len(points))]
    data = np.array([[*np.poly(o)[::-1], 0.0] for o in others] + [np.poly(points)[::-1]])
    scale = np.array([np.prod(p - o) for p, o in zip(points, others, strict=True)])
    filter_ = np.vstack([np.vander(points, 3, increasing=True) / scale[:, None], [0.0, 0.0, 1.0]])
    result = np.hstack([np.vander(points, tile, increasing=True).T, np.eye(tile)[:, -1:]])
    return torch.from_numpy(data), torch.from_numpy(filter_), torch.from_numpy(result)
