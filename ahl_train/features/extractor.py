"""The extractor: preprocessing and the frozen backbone at both scales, the part of the graph before the heads."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.backbone import Backbone, BackboneSpec
from ahl_train.heads.base import Features
from ahl_train.heads.layers import pool_statistics
from ahl_train.images import Sample, load
from ahl_train.preprocess import Preprocess, choose_supersample

VERSION = 2  # raise it when the numbers that this file, preprocess.py or augment.py give would change
FINE = 448  # px, the paper's larger scale; the coarse one is half of it
# How features are kept and handed on: maps in half precision, statistics whole.
KEPT = {"fine": torch.float16, "coarse": torch.float16, "middle": torch.float16, "pooled": torch.float32}
_SIZED = 32  # frames looked at to choose the supersampling


def supersample_for(samples: Sequence[Sample]) -> int:
    """An extractor's supersampling for frames of the samples' size. DataError if one of the first cannot be read."""
    return choose_supersample((load(sample).shape[:2] for sample in samples[:_SIZED]), FINE)


class Extractor(nn.Module):
    """The part of the graph before the heads: preprocessing and the frozen backbone at both scales."""

    def __init__(self, spec: BackboneSpec, supersample: int = 1) -> None:
        super().__init__()
        self.backbone = Backbone(spec, stages=(-3, -2, -1))
        self.preprocess = Preprocess(FINE, self.backbone.mean, self.backbone.std, supersample)
        self.middle_channels, self.before_channels, self.channels = self.backbone.channels
        self.spec, self.supersample = spec, supersample

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one frame's features, in the order in which they are kept."""
        c, d, e = self.channels, self.before_channels, self.middle_channels
        return {"fine": (c, 14, 14), "coarse": (c, 7, 7), "middle": (e, 14, 14), "pooled": (3 * d,)}

    def forward(self, image: Tensor) -> Features:
        """uint8 [N, H, W, 3] to float32 features of the last stage, C channels, and of the two before, D and E.

        ``fine`` [N, C, 14, 14] and ``coarse`` [N, C, 7, 7]: the last stage at 448 and 224 px (METHOD, Features).
        ``middle`` [N, E, 14, 14]: the last but two at 448 px, mean-pooled by 4. ``pooled`` [N, 3 D]: statistics of the
        last but one at 224 px.
        """
        return self.of_scales(*self.preprocess(image))

    def of_scales(self, fine: Tensor, coarse: Tensor) -> Features:
        """The same of preprocessed frames, float32 [N, 3, 448, 448] and [N, 3, 224, 224]."""
        middle, _, last_fine = self.backbone(fine)
        _, before, last_coarse = self.backbone(coarse)
        return {
            "fine": last_fine,
            "coarse": last_coarse,
            "middle": F.avg_pool2d(middle, 4),
            "pooled": pool_statistics(before),
        }
