"""The base of ahl-plus: Gaussian densities of normality, and learned directions of abnormality in their white space."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.gaussian import Gaussian
from ahl_train.heads.base import Base, Features
from ahl_train.heads.layers import pool_statistics


class Plus(Base):
    """Four densities, fitted once on normals, and two learned heads that add to them.

    Densities (two depths; whole image and patches): the pooled statistics of the last stage and of the one before,
    and the patches of both. Learned heads: the directions, in the whitened pooled spaces, in which the seen and the
    pseudo anomalies lie.
    """

    names = ("density", "seen", "pseudo")
    trains_on = ((False, False, False), (True, True, False), (True, False, True))
    negated = (False, False, False)
    inputs = ("coarse", "middle", "pooled")

    def __init__(self, channels: int, middle_channels: int) -> None:
        super().__init__()
        self.whole_last, self.whole_middle = Gaussian(3 * channels), Gaussian(3 * middle_channels)
        self.patch_last, self.patch_middle = Gaussian(channels), Gaussian(middle_channels)
        self.direction_last = nn.Parameter(torch.zeros(2, 3 * channels))
        self.direction_middle = nn.Parameter(torch.zeros(2, 3 * middle_channels))

    def fit_normals(self, features: Features) -> None:
        self.whole_last.fit(_whole_last(features))
        self.whole_middle.fit(_whole_middle(features))
        self.patch_last.fit(_patches(features["coarse"]))
        self.patch_middle.fit(_patches(features["middle"]))

    def heads(self, features: Features) -> Tensor:
        density, directions = torch.zeros(()), torch.zeros(())
        for gaussian, vectors, direction in (
            (self.whole_last, _whole_last(features), self.direction_last),
            (self.whole_middle, _whole_middle(features), self.direction_middle),
        ):
            white = gaussian(vectors)
            density = density + gaussian.density(gaussian.distance(white))
            # Of unit length: how far out a frame lies is the density's to say.
            directions = directions + _directed(white[:, 0]) @ direction.T
        for gaussian, distance in self._patch_distances(features):
            density = density + gaussian.density(distance)
        return torch.cat([density.unsqueeze(-1), directions], dim=-1)

    def maps(self, features: Features) -> Tensor:
        last, middle = (d.clamp_min(1e-12).log() for _, d in self._patch_distances(features))
        last = last.unflatten(1, features["coarse"].shape[-2:]).unsqueeze(1)
        middle = middle.unflatten(1, features["middle"].shape[-2:])
        return middle + F.interpolate(last, size=middle.shape[-2:], mode="bilinear")[:, 0]

    def _patch_distances(self, features: Features) -> list[tuple[Gaussian, Tensor]]:
        pairs = ((self.patch_last, features["coarse"]), (self.patch_middle, features["middle"]))
        return [(g, g.distance(g(_patches(maps)))) for g, maps in pairs]


def _directed(white: Tensor) -> Tensor:
    """float [N, D] scaled to length sqrt(D): coordinates of unit size, whatever D is."""
    return F.normalize(white, dim=-1) * white.shape[-1] ** 0.5


def _whole_last(features: Features) -> Tensor:
    return pool_statistics(features["coarse"]).unsqueeze(1)


def _whole_middle(features: Features) -> Tensor:
    return features["pooled"].unsqueeze(1)


def _patches(maps: Tensor) -> Tensor:
    """float [N, C, h, w] to [N, h w, C]."""
    return maps.flatten(2).transpose(1, 2)
