"""Feature maps: what the extractor gives, and the pooling that it shares with heads."""

import torch
import torch.nn.functional as F
from torch import Tensor

Features = dict[str, Tensor]  # by name, each [N, ...]: features.Extractor says which


def pool_statistics(maps: Tensor) -> Tensor:
    """float [N, C, h, w] to [N, 3 C]: mean, standard deviation and maximum over the positions; float32 of float16."""
    flat = (maps.float() if maps.dtype == torch.float16 else maps).flatten(2)
    mean = flat.mean(2)
    # Written out, since exporters disagree about the correction that torch.std applies.
    std = (flat - mean.unsqueeze(2)).square().mean(2).clamp_min(1e-12).sqrt()
    return torch.cat([mean, std, flat.amax(2)], dim=1)


def smooth(maps: Tensor) -> Tensor:
    """float [N, C, h, w], each position averaged with its neighbours, with zeros around the map.

    The zeros damp the border, where a network that pads sees what is no part of the frame.
    """
    return F.avg_pool2d(maps, 3, stride=1, padding=1)
