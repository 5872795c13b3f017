"""Feature maps: the extractor's output, and the pooling that extractor and heads share."""

import torch
import torch.nn.functional as F
from torch import Tensor

Features = dict[str, Tensor]  # by name, each [N, ...]: see features.Extractor


def pool_statistics(maps: Tensor) -> Tensor:
    """float [N, C, h, w] to [N, 3 C]: mean, standard deviation and maximum over the positions; float32 of float16."""
    flat = (maps.float() if maps.dtype == torch.float16 else maps).flatten(2)
    mean = flat.mean(2)
    # Written out, because exporters disagree about the correction in torch.std.
    std = (flat - mean.unsqueeze(2)).square().mean(2).clamp_min(1e-12).sqrt()
    return torch.cat([mean, std, flat.amax(2)], dim=1)


def smooth(maps: Tensor) -> Tensor:
    """float [N, C, h, w], each position averaged with its neighbours, with zeros around the map.

    The zeros damp the border, where a network with padding sees values outside the frame.
    """
    return F.avg_pool2d(maps, 3, stride=1, padding=1)
