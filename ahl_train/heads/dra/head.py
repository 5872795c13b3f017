"""DRA: four heads on both scales; holistic normality, seen, pseudo and latent residual abnormality."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.features.maps import Features
from ahl_train.heads.base import TIMES, Base
from ahl_train.heads.dra.winograd import conv3x3
from ahl_train.heads.layers import BatchNormRelu, Modules, PointScore, mean_of_scales
from ahl_train.heads.loss import top_k_mean
from ahl_train.systems import System

REFERENCES = 5
_SCALES = ("fine", "coarse")


class DRA(Base):
    """The base of AHL(DRA). The residual head's reference is the mean map of 5 normals."""

    names = ("normality", "seen", "pseudo", "residual")
    trains_on = ((True, True, True), (True, True, False), (True, False, True), (True, True, True))
    negated = (True, False, False, False)
    inputs = _SCALES
    winograd = True  # train with Winograd's convolution
    residual_norm: Modules[BatchNormRelu]

    def __init__(self, channels: int, hidden: int = 256) -> None:
        super().__init__()
        self.holistic = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.abnormality = PointScore(channels, 2)
        bound = 1 / math.sqrt(9 * channels)
        self.residual_conv = nn.Parameter(torch.empty(channels, channels, 3, 3).uniform_(-bound, bound))
        # The scales have different statistics, so each has its own norm.
        self.residual_norm = Modules({scale: BatchNormRelu(channels) for scale in _SCALES})
        self.residual_point = PointScore(channels, 1)
        self.register_buffer("reference_fine", torch.zeros(channels, 14, 14))
        self.register_buffer("reference_coarse", torch.zeros(channels, 7, 7))

    def fit_normals(self, features: Features) -> None:
        for scale in _SCALES:
            setattr(self, f"reference_{scale}", features[scale][:REFERENCES].mean(0))

    @torch.no_grad()
    def fit_norms(self, features: Features) -> None:
        for norm, residual in zip(self.residual_norm.values(), self._residuals(features), strict=True):
            norm.fit(residual)

    def heads(self, features: Features) -> Tensor:
        normality = mean_of_scales(lambda maps: self.holistic(maps.mean((-2, -1))), features)
        abnormality = mean_of_scales(lambda maps: top_k_mean(self.abnormality(maps).abs()), features)
        fine, coarse = (top_k_mean(found) for found in self._residual_maps(features))
        return torch.cat([normality, abnormality, (fine + coarse) / 2], dim=-1)

    def maps(self, features: Features) -> Tensor:
        fine, coarse = (
            self.abnormality(features[scale]).abs().sum(1, keepdim=True) + residual
            for scale, residual in zip(_SCALES, self._residual_maps(features), strict=True)
        )
        mean: Tensor = (fine + F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")) / 2
        return mean[:, 0]

    def _residuals(self, features: Features) -> list[Tensor]:
        """The convolved residuals of both scales."""
        residuals = [getattr(self, f"reference_{scale}") - features[scale] for scale in _SCALES]
        if self.training and self.winograd:
            return conv3x3(residuals, self.residual_conv)
        return [F.conv2d(residual, self.residual_conv, padding=1) for residual in residuals]

    def _residual_maps(self, features: Features) -> list[Tensor]:
        norms = zip(self.residual_norm.values(), self._residuals(features), strict=True)
        hidden = (norm(residual, features.get(TIMES)) for norm, residual in norms)
        point = self.residual_point.channels_last if self.training else self.residual_point
        return [point(maps).abs() for maps in hidden]


SYSTEM = System("DRA", lambda extractor, shots: DRA(extractor.channels), ahl=False, schedule="short")
AHL_SYSTEM = System("AHL(DRA)", SYSTEM.base, ahl=True, schedule="short")
