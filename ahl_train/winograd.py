"""3x3 convolution by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2015, arXiv 1509.09308).

A third of the multiplications of a direct convolution, where maps are small and channels many; and T models' filters
are T batches of matrix products, where a direct convolution would be a grouped one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_OUT, _IN = 4, 6  # a tile's side, written and read
# Of one dimension, for the points 0, 1, -1, 2, -2 and infinity.
_DATA = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_FILTER = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_RESULT = torch.tensor([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_DATA2, _FILTER2, _RESULT2 = (torch.kron(m, m) for m in (_DATA, _FILTER, _RESULT))


def conv3x3(maps: Tensor, weight: Tensor) -> Tensor:
    """float [N, C, h, w] and [O, C, 3, 3] to [N, O, h, w]: F.conv2d with padding 1.

    In float32 to 1e-4, in values around 1.
    """
    data2, filter2, result2 = (m.to(maps.device, maps.dtype) for m in (_DATA2, _FILTER2, _RESULT2))
    n, c, h, w = maps.shape
    down, right = -(-h // _OUT), -(-w // _OUT)
    # Channels last: all copies are of whole rows.
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, _OUT * right + 1 - w, 1, _OUT * down + 1 - h))
    tiles = padded.unfold(1, _IN, _OUT).unfold(2, _IN, _OUT)  # [N, down, right, C, 6, 6]
    data = (data2 @ tiles.permute(4, 5, 0, 1, 2, 3).reshape(_IN * _IN, -1)).view(_IN * _IN, -1, c)
    filters = (weight.flatten(2) @ filter2.T).permute(2, 1, 0)  # [36, C, O]
    products = data @ filters  # [36, N down right, O]
    found = result2 @ products.flatten(1)
    found = found.view(_OUT, _OUT, n, down, right, -1).permute(2, 5, 3, 0, 4, 1)
    return found.reshape(n, -1, _OUT * down, _OUT * right)[:, :, :h, :w]
