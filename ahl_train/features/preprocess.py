"""Pixels to network input: the only preprocessing, used in training and included in the exported graph."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Preprocess(nn.Module):
    """Resize uint8 frames to both scales of the paper (METHOD, Features) and normalise them.

    Only a bilinear resize without antialiasing gives equal results in all engines. So frames larger than twice the
    target are resized to ``supersample * size`` and mean-pooled, which uses every source pixel. The coarse scale is
    the fine one, mean-pooled: one resize serves both.
    """

    gain: Tensor
    bias: Tensor

    def __init__(self, size: int, mean: tuple[float, ...], std: tuple[float, ...], supersample: int = 1) -> None:
        super().__init__()
        self.size, self.supersample = size, supersample
        # x / 255 normalised by mean and std, as one multiply and one add.
        self.register_buffer("gain", torch.tensor([1 / (255 * s) for s in std]).view(1, 3, 1, 1))
        self.register_buffer("bias", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, H, W, 3] RGB to float32 [N, 3, size, size] and [N, 3, size / 2, size / 2]."""
        side = self.size * self.supersample
        x = image.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        if self.supersample > 1:
            x = F.avg_pool2d(x, self.supersample)
        x = x * self.gain + self.bias
        return x, F.avg_pool2d(x, 2)


def choose_supersample(shapes: Iterable[tuple[int, int]], size: int) -> int:
    """Smallest factor at which the bilinear resize skips no source pixel of the median frame; shapes are (H, W)."""
    sides = sorted(max(shape) for shape in shapes)
    return max(1, -(-sides[len(sides) // 2] // (2 * size)))
