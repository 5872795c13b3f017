"""The extractor: preprocessing and the frozen backbone at both scales, the part of the graph before the heads."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.data.images import Sample, load
from ahl_train.features.backbone import BackboneSpec
from ahl_train.features.maps import Features, pool_statistics, smooth
from ahl_train.features.preprocess import Preprocess, choose_supersample
from ahl_train.features.tokens import open_backbone

VERSION = 4  # increase it if a change in this file, preprocess.py or pseudo_anomalies.py changes the features
FINE = 448  # px, the paper's larger scale; the coarse one is half of it
# The dtypes in which features are stored: maps in half precision, statistics in full.
KEPT = {
    "fine": torch.float16,
    "coarse": torch.float16,
    "entry": torch.float16,
    "before": torch.float16,
    "middle": torch.float16,
    "context": torch.float16,
    "pooled": torch.float32,
}
_SIZED = 32  # frames used to choose the supersampling


def supersample_for(samples: Sequence[Sample]) -> int:
    """An extractor's supersampling for frames of the samples' size. DataError if one of the first cannot be read."""
    return choose_supersample((load(sample).shape[:2] for sample in samples[:_SIZED]), FINE)


class Extractor(nn.Module):
    """The part of the graph before the heads: preprocessing and the frozen backbone at both scales."""

    def __init__(self, spec: BackboneSpec, supersample: int = 1) -> None:
        super().__init__()
        self.backbone = open_backbone(spec)
        self.preprocess = Preprocess(FINE, self.backbone.mean, self.backbone.std, supersample)
        self.middle_channels, self.before_channels, self.channels = self.backbone.channels
        self.entry_channels = self.backbone.entry_channels
        self.spec, self.supersample = spec, supersample

    @property
    def device(self) -> torch.device:
        """The device that the extractor computes on."""
        return next(self.parameters()).device

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one frame's features, in the order in which they are stored."""
        return {
            "fine": (self.channels, 14, 14),
            "coarse": (self.channels, 7, 7),
            "entry": (self.entry_channels, 14, 14),
            "before": (self.before_channels, 28, 28),
            "middle": (self.middle_channels, 14, 14),
            "context": (self.before_channels + self.middle_channels, 14, 14),
            "pooled": (3 * self.before_channels,),
        }

    def forward(self, image: Tensor) -> Features:
        """uint8 [N, H, W, 3] to float32 features of the last stage (C channels) and of the two before it (D and E).

        For a vision transformer, blocks replace stages (``tokens.TokenBackbone``).

        ``fine`` [N, C, 14, 14] and ``coarse`` [N, C, 7, 7]: the last stage at 448 and 224 px (METHOD, Features).
        ``entry`` [N, C', 14, 14]: the last stage's first block at 448 px, smoothed.
        ``before`` [N, D, 28, 28]: the last but one at 448 px, smoothed; ``pooled`` [N, 3 D]: statistics of its map, not
        smoothed, without the outermost positions. ``middle`` [N, E, 14, 14]: the last but two at 448 px, mean-pooled by
        2, smoothed, and mean-pooled by 2 again. ``context`` [N, D + E, 14, 14]: the last but one at 224 px, smoothed,
        and the last but two, smoothed and mean-pooled by 2.
        """
        return self.of_scales(*self.preprocess(image))

    def of_scales(self, fine: Tensor, coarse: Tensor) -> Features:
        """The same for preprocessed frames, float32 [N, 3, 448, 448] and [N, 3, 224, 224]."""
        middle, before, last_fine, entry = self.backbone.with_entry(fine)
        middle_coarse, before_coarse, last_coarse = self.backbone(coarse)
        return {
            "fine": last_fine,
            "coarse": last_coarse,
            "entry": smooth(entry),
            "before": smooth(before),
            "middle": F.avg_pool2d(smooth(F.avg_pool2d(middle, 2)), 2),
            "context": torch.cat([smooth(before_coarse), F.avg_pool2d(smooth(middle_coarse), 2)], dim=1),
            "pooled": pool_statistics(before[..., 1:-1, 1:-1]),
        }
