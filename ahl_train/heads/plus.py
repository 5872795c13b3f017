"""The base of AHL+: densities of normality and likeness to the seen anomalies, each weighed by what it proves."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.clusters import Clusters, Standard
from ahl_train.discriminant import Discriminant
from ahl_train.errors import ConfigError
from ahl_train.gaussian import Gaussian
from ahl_train.heads.base import Base, Features
from ahl_train.heads.layers import pool_statistics, smooth
from ahl_train.memory_bank import MemoryBank

FOLDS = 5
_LEAST = 13  # normals: with a fifth of them left out, a Gaussian has the 10 that it needs
_POOLED = ("before", "coarse", "entry")  # spaces of pooled statistics; the density of the last counts for nothing
_PATCHES = ("entry", "coarse", "before", "middle")  # spaces of patches
_TEXTURE = ("before", "middle")  # remembered together
_DENSITIES = 4  # two of pooled statistics, two memories
_BANK = 1_000  # patches
_WORST = 5  # patches of a frame that lie farthest out: where a defect is, if there is one
_CHUNK = 128  # frames looked at at once
# n seen anomalies are trusted n / (n + 2) that likeness to them tells anything, and (n - 1) / (n - 1 + 10) what each
# evidence tells: one alone says nothing of that.
PRIOR_LIKENESS, _PRIOR_WEIGHTS = 2, 10
_MOST = 4.0  # standard deviations: no anomaly says more of an evidence than that


class Plus(Base):
    """Kinds of evidence that a frame is anomalous, in standard deviations of held-out normals of its clusters, weighed.

    Densities: Gaussians of pooled statistics, and memories of normal patches. With seen anomalies also likeness to
    them: of pooled statistics along the anomalies' mean direction once whitened, and along the discriminant of all of
    them together; of a frame's worst patches the cosine to their nearest ones.

    An evidence weighs what it says of the seen anomalies, each left out in turn, squared, and shrunk towards equal
    parts. Of two or more anomalies AHL learns a factor of each weight.
    """

    names = ("density", "seen")
    trains_on = ((True, True, False), (True, True, False))
    negated = (False, False)
    inputs = ("coarse", "entry", "before", "middle", "pooled")

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], shots: int) -> None:
        """Of features of the extractor's ``shapes``, and as many seen anomalies."""
        super().__init__()
        dims = {name: shapes[name][0] for name in _PATCHES}
        self.pooled = nn.ModuleDict({name: Gaussian(3 * dims[name]) for name in _POOLED})
        self.patches = nn.ModuleDict({name: Gaussian(dims[name], math.prod(shapes[name][1:])) for name in _PATCHES})
        texture = sum(dims[name] for name in _TEXTURE)
        self.banks = nn.ModuleDict({"entry": MemoryBank(dims["entry"], _BANK), "texture": MemoryBank(texture, _BANK)})
        for name in _POOLED:
            self.register_buffer(f"direction_{name}", torch.zeros(3 * dims[name]))
        for name in _PATCHES:
            self.register_buffer(f"seen_{name}", torch.zeros(shots, _WORST, dims[name]))
        self.joint = Discriminant(3 * sum(dims.values())) if shots else None
        self.shots = shots
        count = _DENSITIES + (len(_POOLED) + 1 + len(_PATCHES) if shots else 0)
        self.clusters, self.standard = Clusters(dims["coarse"]), Standard(count)
        self.register_buffer("fusion", torch.ones(count))
        # Of one anomaly there is nothing to learn: support and query would have the same.
        self.weight = nn.Parameter(torch.ones(count), requires_grad=shots > 1)

    @torch.no_grad()
    def fit(self, normals: Features, seen: Features) -> Features:
        """Evidence of the normals and the seen anomalies, each held out: what was fitted on looks too normal.

        ConfigError for fewer than 13 normals.
        """
        n = len(normals["pooled"])
        if n < _LEAST:
            raise ConfigError(f"AHL+ needs {_LEAST} train normals at least, there are {n}: add images of good parts")
        fold = torch.arange(n) % FOLDS
        raw = torch.empty(len(fold), len(self.fusion))
        for f in range(FOLDS):
            self._fit_spaces(_part(normals, fold != f), seen)
            for places in torch.where(fold == f)[0].split(_CHUNK):
                raw[places] = self._raw(_part(normals, places))
        joint = self._fit_spaces(normals, seen)
        self.clusters.fit(_means(normals))
        self.standard.fit(raw, self.clusters(_means(normals)))
        held_out = self._standard(raw, normals)
        left_out = self._standard(self._left_out(seen, joint), seen) if self.shots else held_out[:0]
        self.fusion = self._weights(left_out)
        self.fusion /= (held_out @ self.fusion).std().clamp_min(1e-6)
        return {"evidence": torch.cat([held_out, left_out.nan_to_num(0)])}

    def prepare(self, features: Features) -> Features:
        """`evidence` float [N, K]."""
        return {"evidence": self._standard(self._raw(features), features)}

    def heads(self, features: Features) -> Tensor:
        weighed = features["evidence"] * (self.fusion * self.weight)
        density = weighed[..., :_DENSITIES].sum(-1)
        # Written out, since engines disagree about the sum of nothing.
        seen = weighed[..., _DENSITIES:].sum(-1) if self.shots else torch.zeros_like(density)
        return torch.stack([density, seen], dim=-1)

    def losses(self, heads: Tensor, group: Tensor, mu: float, sigma: float) -> Tensor:
        """The deviation loss of the total: no head has to tell anomalies from normals alone."""
        half = heads.sum(-1, keepdim=True).expand_as(heads)
        return super().losses(half, group, mu, sigma) / heads.shape[-1]

    def maps(self, features: Features) -> Tensor:
        """Log distances of the three spaces of patches at 448 px, added up."""
        found = []
        for name in ("entry", *_TEXTURE):
            distance = Gaussian.distance(self.patches[name](_patches(features, name)))
            found.append(distance.clamp_min(1e-12).log().unflatten(1, features[name].shape[-2:]))
        return torch.stack(found).sum(0)

    def _fit_spaces(self, normals: Features, seen: Features) -> Tensor:
        """The Gaussians, the memories, and what the seen anomalies look like in them.

        Gives the discriminant of each seen anomaly by the others, float [M].
        """
        for name, gaussian in self.pooled.items():
            gaussian.fit(_pooled(normals, name))
            if self.shots:
                setattr(self, f"direction_{name}", _unit(gaussian(_pooled(seen, name))[:, 0].mean(0)))
        for name, bank in self.banks.items():
            bank.fit(_patches(normals, name))
        for name, gaussian in self.patches.items():
            gaussian.fit(_patches(normals, name))
            if self.shots:
                setattr(self, f"seen_{name}", _worst(gaussian(_patches(seen, name))))
        return self.joint.fit(_all_pooled(normals), _all_pooled(seen)) if self.joint else torch.empty(0)

    def _raw(self, features: Features) -> Tensor:
        """Evidence before it is standardised, float [N, K]: densities, then likeness to the seen anomalies."""
        white = {name: gaussian(_pooled(features, name)) for name, gaussian in self.pooled.items()}
        found = [Gaussian.log_density(Gaussian.distance(white[name])) for name in ("before", "coarse")]
        found += [bank(_patches(features, name)).amax(-1).clamp_min(1e-12).log() for name, bank in self.banks.items()]
        if self.joint:
            found.append(self.joint(_all_pooled(features)))
            found += [white[name][:, 0] @ getattr(self, f"direction_{name}") for name in _POOLED]
            found += [self._likeness(name, _patches(features, name)).mean(-1) for name in _PATCHES]
        return torch.stack(found, dim=-1)

    def _likeness(self, name: str, patches: Tensor) -> Tensor:
        """To each seen anomaly, float [N, M]: the mean over a frame's worst patches of the cosine to its nearest."""
        white, seen = self.patches[name](patches), getattr(self, f"seen_{name}")
        distance = Gaussian.distance(white)
        cosine = (_unit(white) @ seen.flatten(0, 1).T).unflatten(2, seen.shape[:2]).amax(-1)
        # By the smallest of them, not by their places: every engine compares alike, few gather alike.
        among = (distance >= distance.topk(_WORST, dim=1).values[:, -1:]).to(distance.dtype)
        return (cosine * (among / among.sum(1, keepdim=True)).unsqueeze(-1)).sum(1)

    def _left_out(self, seen: Features, joint: Tensor) -> Tensor:
        """Evidence of the seen anomalies, float [M, K]; likeness is to the others, and unknown of a single one."""
        raw, others = self._raw(seen), ~torch.eye(self.shots, dtype=torch.bool)
        found = [joint]
        for name in _POOLED:
            white = self.pooled[name](_pooled(seen, name))[:, 0]
            direction = _unit(torch.stack([white[kept].mean(0) for kept in others]))
            found.append((white * direction).sum(-1))
        for name in _PATCHES:
            likeness = self._likeness(name, _patches(seen, name)) * others
            found.append(likeness.sum(1) / (self.shots - 1) if self.shots > 1 else joint)
        return torch.cat([raw[:, :_DENSITIES], torch.stack(found, dim=-1)], dim=1)

    def _standard(self, raw: Tensor, features: Features) -> Tensor:
        found: Tensor = self.standard(raw, self.clusters(_means(features)))
        return found

    def _weights(self, left_out: Tensor) -> Tensor:
        """Of each evidence, float [K]: of its mean over anomalies, [M, K], and of equal parts."""
        equal = torch.ones(len(self.fusion))
        equal[_DENSITIES:] = self.shots / (self.shots + PRIOR_LIKENESS)
        if self.shots < 2:
            return equal
        said = left_out.clamp(0, _MOST).mean(0).square()
        trust = (self.shots - 1) / (self.shots - 1 + _PRIOR_WEIGHTS)
        return trust * said / said.mean().clamp_min(1e-6) + (1 - trust) * equal


def _means(features: Features) -> Tensor:
    """What HADG clusters by: means of the last stage at 224 px, float [N, C]."""
    return features["coarse"].mean((2, 3))


def _part(features: Features, places: Tensor) -> Features:
    return {name: values[places] for name, values in features.items()}


def _pooled(features: Features, name: str) -> Tensor:
    """Pooled statistics as [N, 1, 3 C]; those of ``before`` come with the features, from its whole map."""
    return (features["pooled"] if name == "before" else pool_statistics(features[name])).unsqueeze(1)


def _all_pooled(features: Features) -> Tensor:
    """Pooled statistics of all spaces, float [N, D]."""
    return torch.cat([*(_pooled(features, name)[:, 0] for name in _POOLED), pool_statistics(features["middle"])], dim=1)


def _patches(features: Features, name: str) -> Tensor:
    """Smoothed patches, float [N, P, C]; the extractor has smoothed those at 448 px."""
    if name == "texture":
        maps = torch.cat([features[name] for name in _TEXTURE], dim=1)
    else:
        maps = smooth(features[name]) if name == "coarse" else features[name]
    return maps.flatten(2).transpose(1, 2)


def _worst(white: Tensor) -> Tensor:
    """Of whitened float [N, P, D] those that lie farthest out, of length 1: [N, worst, D]."""
    places = Gaussian.distance(white).topk(_WORST, dim=1).indices
    return _unit(white.take_along_dim(places.unsqueeze(-1), dim=1))


def _unit(white: Tensor) -> Tensor:
    """Of length 1: how far out a frame lies is the densities' to say."""
    return F.normalize(white, dim=-1)
