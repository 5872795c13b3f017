"""The base of AHL+: Gaussian densities of normality, and a head that learns which way the seen anomalies lie."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.gaussian import Gaussian
from ahl_train.heads.base import Base, Features
from ahl_train.heads.layers import pool_statistics

_PRIOR_SHOTS = 5  # the seen anomalies are trusted n / (n + 5): one of them says little about the others
_RIDGE = 1.0  # on the correlations of the densities


class Plus(Base):
    """Four densities, fused in closed form, and one learned head.

    The densities are fitted on normals: the pooled statistics of the last stage and of the one before, and the
    patches of both. Their weights are those of a ridge discriminant between normals and seen anomalies, shrunk
    towards equal ones for few shots. The learned head weighs each seen anomaly's direction in the two whitened pooled
    spaces; it starts from their mean. A regularised linear scorer lies in the span of its samples, and M weights
    cannot overfit as thousands of coordinates do.
    """

    names = ("density", "seen")
    trains_on = ((False, False, False), (True, True, False))
    negated = (False, False)
    inputs = ("coarse", "middle", "pooled")

    def __init__(self, channels: int, middle_channels: int, shots: int) -> None:
        super().__init__()
        self.whole = nn.ModuleList([Gaussian(3 * channels), Gaussian(3 * middle_channels)])
        self.patch = nn.ModuleList([Gaussian(channels), Gaussian(middle_channels)])
        self.register_buffer("fusion", torch.ones(4))
        self.trust = shots / (shots + _PRIOR_SHOTS)
        for space, dim in (("last", 3 * channels), ("middle", 3 * middle_channels)):
            self.register_buffer(f"seen_{space}", torch.zeros(shots, dim))
            self.register_buffer(f"level_{space}", torch.zeros(()))
        # Without anomalies there is nothing to learn, and nothing to step on.
        self.weight = nn.Parameter(torch.full((2, shots), 1 / max(shots, 1)), requires_grad=shots > 0)

    @torch.no_grad()
    def fit_normals(self, features: Features) -> None:
        for gaussian, vectors in zip(self._gaussians(), self._vectors(features), strict=True):
            gaussian.fit(vectors)

    @torch.no_grad()
    def fit_seen(self, normals: Features, seen: Features) -> None:
        if not len(seen["pooled"]):
            return
        for i, space in enumerate(("last", "middle")):
            directions = _unit(self.whole[i](self._vectors(seen)[i])[:, 0])
            along = (_unit(self.whole[i](self._vectors(normals)[i])[:, 0]) @ directions.T).mean(1)
            # One standard deviation of the normals is the unit, as it is for the densities.
            unit = along.std().clamp_min(1e-6)
            setattr(self, f"seen_{space}", directions / unit)
            setattr(self, f"level_{space}", along.mean() / unit)
        self.fusion = _fuse(self._densities(normals), self._densities(seen), self.trust)

    def heads(self, features: Features) -> Tensor:
        density = self._densities(features) @ self.fusion
        return torch.stack([density, self.trust * self._seen(features)], dim=-1)

    def maps(self, features: Features) -> Tensor:
        last, middle = (
            g.distance(g(_patches(features[name]))).clamp_min(1e-12).log()
            for g, name in zip(self.patch, ("coarse", "middle"), strict=True)
        )
        last = last.unflatten(1, features["coarse"].shape[-2:]).unsqueeze(1)
        middle = middle.unflatten(1, features["middle"].shape[-2:])
        return middle + F.interpolate(last, size=middle.shape[-2:], mode="bilinear")[:, 0]

    def _gaussians(self) -> list[Gaussian]:
        return [*self.whole, *self.patch]

    @staticmethod
    def _vectors(features: Features) -> list[Tensor]:
        """What each Gaussian looks at, [N, P, D]."""
        pooled = (pool_statistics(features["coarse"]), features["pooled"])
        return [*(p.unsqueeze(1) for p in pooled), _patches(features["coarse"]), _patches(features["middle"])]

    def _densities(self, features: Features) -> Tensor:
        """float [N, 4], each in standard deviations of unseen normals."""
        pairs = zip(self._gaussians(), self._vectors(features), strict=True)
        return torch.stack([g.density(g.distance(g(v))) for g, v in pairs], dim=-1)

    def _seen(self, features: Features) -> Tensor:
        """float [N]: how far towards the seen anomalies."""
        total = features["pooled"].new_zeros(())
        for i, (space, vectors) in enumerate(zip(("last", "middle"), self._vectors(features), strict=False)):
            along = _unit(self.whole[i](vectors)[:, 0]) @ getattr(self, f"seen_{space}").T
            total = total + along @ self.weight[i] - getattr(self, f"level_{space}") * self.weight[i].sum()
        return total


def _fuse(normals: Tensor, seen: Tensor, trust: float) -> Tensor:
    """Weights [4] that add up to 4: a ridge discriminant, no weight below 0, shrunk towards ones."""
    equal = torch.ones(normals.shape[1])
    mean, std = normals.mean(0), normals.std(0).clamp_min(1e-6)
    correlation = torch.corrcoef(normals.T)
    separation = (seen.mean(0) - mean) / std
    weights = torch.linalg.solve(correlation + _RIDGE * torch.eye(len(equal)), separation).clamp_min(0)
    if weights.sum() <= 0:
        return equal
    return trust * weights * len(equal) / weights.sum() + (1 - trust) * equal


def _unit(white: Tensor) -> Tensor:
    """Of length 1: how far out a frame lies is the densities' to say."""
    return F.normalize(white, dim=-1)


def _patches(maps: Tensor) -> Tensor:
    """float [N, C, h, w] to [N, h w, C]."""
    return maps.flatten(2).transpose(1, 2)
