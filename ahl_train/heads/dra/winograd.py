"""3x3 convolution by Winograd's minimal filtering F(7x7, 3x3) (Lavin and Gray 2015, arXiv 1509.09308).

It needs a fifth of the multiplications of a direct convolution: tiles of 7 cover maps of 14 and of 7 exactly. The
filters of T models are T batches of matrix products; a direct convolution would be a grouped one.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_OUT, _IN = 7, 9  # a tile's side: output, input
# Besides infinity. The usual 0, 1, -1, 2, -2, 1/2, -1/2 and an eighth would lose three more bits to rounding.
_POINTS = np.array([0.25, -0.25, 0.75, -0.75, 1.25, -1.25, 2, -2])


def _toom_cook() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The matrices of one dimension: results [7, 9], filters [9, 3], data [9, 9].

    A product of polynomials through its values at the points and at infinity, transposed (Lavin and Gray 2015, 4.1).
    """
    result, filters, data = np.zeros((_OUT, _IN)), np.zeros((_IN, 3)), np.zeros((_IN, _IN))
    for i, point in enumerate(_POINTS):
        others = np.delete(_POINTS, i)
        result[:, i] = point ** np.arange(_OUT)
        filters[i] = point ** np.arange(3) / np.prod(point - others)
        data[i, :-1] = np.poly(others)[::-1]
    result[-1, -1] = filters[-1, -1] = 1
    data[-1] = np.poly(_POINTS)[::-1]
    return result, filters, data


_RESULT, _FILTER, _DATA = (torch.from_numpy(m) for m in _toom_cook())


def conv3x3(maps: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
    """float [N, C, h, w] each and [O, C, 3, 3] to [N, O, h, w] each: F.conv2d with padding 1, for all maps at once.

    Accurate to 1e-3 in float32, for values around 1.
    """
    result, filters = _matrices(weight.device, weight.dtype)
    out, channels = weight.shape[:2]
    tiles = [_data(m) for m in maps]
    rows = filters @ weight.permute(2, 3, 1, 0).reshape(3, -1)
    products = torch.cat(tiles, dim=1) @ (filters @ rows.view(_IN, 3, -1)).view(-1, channels, out)  # [81, tiles, O]
    found = (result @ products.flatten(1)).view(_OUT, _OUT, -1, out)
    parts = found.split([t.shape[1] for t in tiles], dim=2)
    return [_placed(part, m) for part, m in zip(parts, maps, strict=True)]


def _data(maps: Tensor) -> Tensor:
    """[N, C, h, w] to [81, down right N, C]: the transformed data of each tile."""
    n, c, h, w = maps.shape
    rows, columns = (_band(side, maps.device, maps.dtype) for side in (h, w))
    found = rows @ maps.permute(2, 3, 0, 1).reshape(h, -1)
    found = columns @ found.view(-1, w, n * c)
    tiles = found.view(_tiles(h), _IN, _tiles(w), _IN, n, c)
    return tiles.permute(1, 3, 0, 2, 4, 5).reshape(_IN * _IN, -1, c)


def _placed(found: Tensor, maps: Tensor) -> Tensor:
    """[7, 7, down right N, O] to [N, O, h, w]."""
    n, _, h, w = maps.shape
    down, right = _tiles(h), _tiles(w)
    tiles = found.reshape(_OUT, _OUT, down, right, n, -1).permute(2, 0, 3, 1, 4, 5)
    return tiles.reshape(_OUT * down, _OUT * right, n, -1)[:h, :w].permute(2, 3, 0, 1)


def _tiles(side: int) -> int:
    return -(-side // _OUT)


@cache
def _matrices(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The matrices of results (both dimensions at once) and of filters; sent to a device once."""
    return torch.kron(_RESULT, _RESULT).to(device, dtype), _FILTER.to(device, dtype)


@cache
def _band(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The matrix that transforms all tiles along a side, with zeros beyond the side: [tiles 9, side]."""
    band = torch.zeros(_tiles(side), _IN, _tiles(side) * _OUT + 2, dtype=_DATA.dtype)
    for tile in range(_tiles(side)):
        band[tile, :, tile * _OUT : tile * _OUT + _IN] = _DATA
    return band[:, :, 1 : side + 1].flatten(0, 1).to(device, dtype)
