"""The base of AHL+: Gaussian densities of normality, and a head that learns which way the seen anomalies lie."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.clusters import CLUSTERS, Clusters, Standard
from ahl_train.gaussian import Gaussian
from ahl_train.heads.base import Base, Features
from ahl_train.heads.layers import pool_statistics

_PRIOR_SHOTS = 5  # the seen anomalies are trusted n / (n + 5): one of them says little about the others
_WORST = 5  # patches of a frame that lie farthest out: where a defect is, if there is one
_CHUNK = 256  # normals looked at at once


class Plus(Base):
    """Four densities and one learned head, each in standard deviations of the normals of a frame's own cluster.

    Two spaces hold pooled statistics, of the last stage and of the one before; two hold patches, of the last stage and
    of the last but two. A Gaussian of normals whitens each, and its log distance is a density. The learned head weighs
    each seen anomaly's likeness to the frame, a cosine in each whitened space; it starts from their mean. A regularised
    linear scorer lies in the span of its samples, and M weights a space cannot overfit as thousands of coordinates do.
    """

    names = ("density", "seen")
    trains_on = ((False, False, False), (True, True, False))
    negated = (False, False)
    inputs = ("coarse", "middle", "pooled")

    def __init__(self, channels: int, before: int, middle: int, shots: int, clusters: int = CLUSTERS) -> None:
        """Channels of the last stage, of the one before it and of the one before that."""
        super().__init__()
        dims = (3 * channels, 3 * before, channels, middle)
        self.clusters = Clusters(channels, clusters)
        self.gaussians = nn.ModuleList(Gaussian(dim) for dim in dims)
        self.density = nn.ModuleList(Standard(1, clusters) for _ in dims)
        self.likeness = nn.ModuleList(Standard(shots, clusters) for _ in dims)
        # Of unit length: one vector of a seen anomaly in a pooled space, its worst patches in the others.
        for i, dim in enumerate(dims):
            self.register_buffer(f"seen_{i}", torch.zeros(shots, 1 if i < 2 else _WORST, dim))
        self.shots, self.trust = shots, shots / (shots + _PRIOR_SHOTS)
        # Around 1, so that a step is as large for any number of shots. Without anomalies there is nothing to learn.
        self.weight = nn.Parameter(torch.ones(len(dims), shots), requires_grad=shots > 0)

    @torch.no_grad()
    def fit_normals(self, features: Features) -> None:
        self.clusters.fit(_mean(features))
        membership = self.clusters(_mean(features))
        for gaussian, density, vectors in zip(self.gaussians, self.density, _vectors(features), strict=True):
            # Of normals that were not fitted on: those that were look too normal.
            density.fit(gaussian.fit(vectors).unsqueeze(1), membership)

    @torch.no_grad()
    def fit_seen(self, normals: Features, seen: Features) -> None:
        if not self.shots:
            return
        for i, white in enumerate(self._whitened(seen)):
            worst = Gaussian.distance(white).topk(getattr(self, f"seen_{i}").shape[1], dim=1).indices
            setattr(self, f"seen_{i}", _unit(white.take_along_dim(worst.unsqueeze(-1), dim=1)))
        chunks = [
            self._likeness(self._whitened({k: v[start : start + _CHUNK] for k, v in normals.items()}))
            for start in range(0, len(normals["pooled"]), _CHUNK)
        ]
        membership = self.clusters(_mean(normals))
        for i, likeness in enumerate(self.likeness):
            likeness.fit(torch.cat([chunk[i] for chunk in chunks]), membership)

    def prepare(self, features: Features) -> Features:
        """`density` float [N, 4], of each space, and `likeness` float [N, 4, M], to each seen anomaly."""
        membership, whitened = self.clusters(_mean(features)), self._whitened(features)
        density = [
            standard(gaussian.log_density(gaussian.distance(white)).unsqueeze(1), membership)[:, 0]
            for standard, gaussian, white in zip(self.density, self.gaussians, whitened, strict=True)
        ]
        if not self.shots:
            return {"density": torch.stack(density, dim=1)}
        likeness = [
            standard(found, membership) for standard, found in zip(self.likeness, self._likeness(whitened), strict=True)
        ]
        return {"density": torch.stack(density, dim=1), "likeness": torch.stack(likeness, dim=1)}

    def heads(self, features: Features) -> Tensor:
        density = features["density"].sum(1)
        seen = self.seen(features).sum(1) if self.shots else torch.zeros_like(density)
        return torch.stack([density, self.trust * seen], dim=-1)

    def seen(self, prepared: Features) -> Tensor:
        """float [N, 4]: the weighted likeness to the seen anomalies in each space."""
        return (prepared["likeness"] * self.weight).sum(-1) / self.shots

    def maps(self, features: Features) -> Tensor:
        last, middle = (Gaussian.distance(white).clamp_min(1e-12).log() for white in self._whitened(features)[2:])
        last = last.unflatten(1, features["coarse"].shape[-2:]).unsqueeze(1)
        middle = middle.unflatten(1, features["middle"].shape[-2:])
        return middle + F.interpolate(last, size=middle.shape[-2:], mode="bilinear")[:, 0]

    def _whitened(self, features: Features) -> list[Tensor]:
        """A frame's vectors in the four spaces, each [N, P, D]."""
        return [gaussian(v) for gaussian, v in zip(self.gaussians, _vectors(features), strict=True)]

    def _likeness(self, whitened: list[Tensor]) -> list[Tensor]:
        """How like each seen anomaly a frame is, float [N, M] a space: its worst patches' cosines to their nearest."""
        likeness = []
        for i, white in enumerate(whitened):
            seen = getattr(self, f"seen_{i}")
            cosine = (_unit(white) @ seen.flatten(0, 1).T).unflatten(2, seen.shape[:2]).amax(-1)
            likeness.append((cosine * _worst(Gaussian.distance(white), seen.shape[1]).unsqueeze(-1)).sum(1))
        return likeness


def _vectors(features: Features) -> list[Tensor]:
    """What each Gaussian looks at, [N, P, D]."""
    pooled = (pool_statistics(features["coarse"]), features["pooled"])
    return [*(p.unsqueeze(1) for p in pooled), _patches(features["coarse"]), _patches(features["middle"])]


def _worst(distance: Tensor, count: int) -> Tensor:
    """float [N, P] to weights [N, P] of equal parts at the largest ``count``, 0 elsewhere."""
    # By the smallest of them, not by their places: every engine compares alike, few gather alike.
    among = (distance >= distance.topk(count, dim=1).values[:, -1:]).to(distance.dtype)
    return among / among.sum(1, keepdim=True)


def _mean(features: Features) -> Tensor:
    """float [N, C], where HADG's clusters are."""
    return features["coarse"].mean((-2, -1))


def _unit(white: Tensor) -> Tensor:
    """Of length 1: how far out a frame lies is the densities' to say."""
    return F.normalize(white, dim=-1)


def _patches(maps: Tensor) -> Tensor:
    """float [N, C, h, w] to [N, h w, C]."""
    return maps.flatten(2).transpose(1, 2)
