"""MLEP: a margin-learned embedding of normals against few anomalies (Liu et al. 2019); scales averaged.

The paper's model is for video. This is the part that applies to images: the margin loss, without frame prediction.
"""

import math

import torch
from torch import Tensor, nn

from ahl_train.features.maps import Features
from ahl_train.heads.base import NORMAL, Base
from ahl_train.heads.layers import map_of_scales, mean_of_scales
from ahl_train.systems import System

MARGIN = 1.0  # about a normal's distance before training


class MLEP(Base):
    """A row of the tables. The score is the distance of the embedded pooled feature to the centre of the normals.

    The embedding is linear. So the normals' mean, fitted before training, embeds to the centre of their embeddings
    for any weights: training and evaluation share one centre.
    """

    names = ("distance",)
    trains_on = ((True, True, False),)
    negated = (False,)
    inputs = ("fine", "coarse")

    def __init__(self, channels: int, dimensions: int = 64) -> None:
        super().__init__()
        bound = math.sqrt(3 / channels)  # keeps the mean square
        self.embedding = nn.Parameter(torch.empty(dimensions, channels).uniform_(-bound, bound))
        for scale in self.inputs:
            self.register_buffer(f"centre_{scale}", torch.zeros(channels))
            self.register_buffer(f"spread_{scale}", torch.ones(()))

    def fit_normals(self, features: Features) -> None:
        for scale in self.inputs:
            pooled = features[scale].mean((-2, -1))
            centre = pooled.mean(0)
            setattr(self, f"centre_{scale}", centre)
            setattr(self, f"spread_{scale}", (pooled - centre).square().mean().sqrt().clamp_min(1e-6))

    def losses(self, heads: Tensor, group: Tensor, mu: float, sigma: float) -> Tensor:
        """Pull: d for a normal. Push: max(0, d_n + MARGIN - d) for an anomaly, d_n the batch's mean of normals."""
        normal = (group == NORMAL)[:, None]
        of_normals = (heads * normal).sum(-2, keepdim=True) / normal.sum().clamp_min(1)
        return torch.where(normal, heads, (of_normals + MARGIN - heads).clamp_min(0))

    def heads(self, features: Features) -> Tensor:
        pooled = {scale: self._centred(features, scale).mean((-2, -1), keepdim=True) for scale in self.inputs}
        return mean_of_scales(self._distance, pooled).flatten(1)

    def maps(self, features: Features) -> Tensor:
        return map_of_scales(self._distance, {scale: self._centred(features, scale) for scale in self.inputs})

    def _centred(self, features: Features, scale: str) -> Tensor:
        centre: Tensor = getattr(self, f"centre_{scale}")
        spread: Tensor = getattr(self, f"spread_{scale}")
        return (features[scale] - centre[:, None, None]) / spread

    def _distance(self, maps: Tensor) -> Tensor:
        """Root mean square of the embedding, float [N, C, h, w] to [N, 1, h, w]."""
        embedded = self.embedding @ maps.flatten(2)
        flat = embedded.square().mean(1, keepdim=True).clamp_min(1e-12).sqrt()
        distance: Tensor = flat.unflatten(2, maps.shape[-2:])
        return distance


SYSTEM = System("MLEP", lambda extractor, shots: MLEP(extractor.channels), ahl=False)
