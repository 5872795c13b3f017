"""Vision transformers as backbones: makes their tokens a pyramid of maps, as a convolutional network has."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from ahl_train.errors import WeightsError
from ahl_train.features.backbone import Backbone, BackboneSpec, load_network

_DEPTHS = (1 / 2, 3 / 4, 1.0)  # shares of all blocks: depths of the three maps
_STRIDE = 16  # px: side of a patch in a frame of 448 px
SIDES = {448: (56, 28, 14), 224: (28, 14, 7)}  # a frame's side in px: sides of the maps of three stages


class TokenBackbone(nn.Module):
    """A frozen transformer whose patches all have one size, such as DINOv2. It returns the same maps as ``Backbone``.

    Three blocks replace three stages: those at half, three quarters and all of its depth, each with the network's last
    norm. A frame is resized so that a patch covers 16 px of 448: 28 x 28 patches, or 14 x 14. The first map is
    repeated to half that stride, the last one mean-pooled to twice.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: tuple[int, ...]  # of the three maps

    def __init__(self, net: Any) -> None:  # timm's networks have no useful type
        super().__init__()
        config = resolve_model_data_config(net)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        infos = net.feature_info
        self.patch = int(infos[-1]["reduction"])
        first, second, last = (round(depth * len(infos)) - 1 for depth in _DEPTHS)
        self.blocks = (first, second, second + 1, last)  # the third is the entry
        self.channels = tuple(infos[i]["num_chs"] for i in (first, second, last))
        self.entry_channels: int = infos[second + 1]["num_chs"]
        net.reset_classifier(0)
        self.net: Any = net.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """float32 [N, 3, S, S], normalised, to three float32 maps [N, C_i, h_i, w_i], of strides 8, 16 and 32."""
        return self.with_entry(x)[:3]

    def with_entry(self, x: Tensor) -> list[Tensor]:
        """The same, and the entry, float32 [N, C', S / 32, S / 32]: the block after the second map's, mean-pooled."""
        side = x.shape[-1] // _STRIDE * self.patch
        if side != x.shape[-1]:
            x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        first, second, entry, last = self.net.forward_intermediates(
            x, indices=list(self.blocks), norm=True, stop_early=True, intermediates_only=True
        )
        return [F.interpolate(first, scale_factor=2.0), second, F.avg_pool2d(last, 2), F.avg_pool2d(entry, 2)]


def open_backbone(spec: BackboneSpec) -> Backbone | TokenBackbone:
    """The backbone, tried on a frame at both scales. WeightsError if its maps are not those that the heads need."""
    net = load_network(spec)
    try:
        found = TokenBackbone(net) if _tokens(net) else Backbone(net, (-3, -2, -1))
        reason = _misfit(found)
    except Exception as error:  # timm's networks raise any error for a wrong size
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if reason:
        raise WeightsError(
            f"backbone {spec.name!r} does not fit ({reason}): choose a network with stages of strides 8, 16 and 32, "
            "such as resnet18, or a ViT with a free image size, such as vit_small_patch14_dinov2"
        )
    return found


def _tokens(net: Any) -> bool:
    """Whether the last three stages have one stride."""
    return len({info["reduction"] for info in net.feature_info[-3:]}) == 1


@torch.inference_mode()
def _misfit(backbone: Backbone | TokenBackbone) -> str | None:
    """What is wrong with its maps of a black frame, at either scale; None if nothing is wrong."""
    for side, wanted in SIDES.items():
        maps = backbone.with_entry(torch.zeros(1, 3, side, side))
        got = [tuple(values.shape[1:]) for values in maps]
        channels = (*backbone.channels, backbone.entry_channels)
        expected = [(c, s, s) for c, s in zip(channels, (*wanted, wanted[-1]), strict=True)]
        if got != expected:
            return f"its maps of {side} px are {got}, expected {expected}"
    return None
