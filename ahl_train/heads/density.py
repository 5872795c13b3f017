"""Density: densities of normality and likeness to the seen anomalies, each weighted by its evidence."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahl_train.errors import ConfigError
from ahl_train.features.clusters import Clusters, Standard
from ahl_train.features.maps import Features, pool_statistics, smooth
from ahl_train.heads.base import Base, Copies
from ahl_train.heads.discriminant import Discriminant
from ahl_train.heads.gaussian import Gaussian
from ahl_train.heads.layers import Modules
from ahl_train.heads.memory_bank import MemoryBank
from ahl_train.systems import System

FOLDS = 5
LEAST = 13  # normals: without a fifth of them, 10 remain, which a Gaussian needs
_POOLED = ("before", "coarse", "entry")  # spaces of pooled statistics; the last one's density is not used
_PATCHES = ("entry", "coarse", "before", "middle")  # spaces of patches
_BANKS = ("entry", "texture", "context")  # spaces with a memory of normal patches; texture: before and middle
_DENSITIES = 2 + len(_BANKS)  # two of pooled statistics, then the memories
_MEMORIES = slice(2, _DENSITIES)
_BANK = 1_000  # patches
_AXES = {"context": 64}  # principal axes along which a memory measures; other memories use all
_WIDE = 4.0  # weight of context in the map if its memory is fully trusted
_WORST = 5  # patches of a frame that lie farthest out, where a defect would be
_CHUNK = 128  # frames computed at once
# Trust with n seen anomalies: n / (n + 2) in likeness to them at all, and (n - 1) / (n - 1 + 10) in the weight that
# they give each evidence. A single anomaly gives no weights.
PRIOR_LIKENESS, _PRIOR_WEIGHTS = 2, 10
_MOST = 4.0  # standard deviations: an anomaly's evidence is clipped here


class Density(Base):
    """Weighted evidence that a frame is anomalous, in standard deviations of held-out normals of its clusters.

    Densities: Gaussians of pooled statistics, and memories of normal patches. With seen anomalies there is also
    likeness to them: of whitened pooled statistics along the anomalies' mean direction; of all pooled statistics
    together along a discriminant; and of a frame's worst patches, the cosine to the anomalies' nearest ones.

    An evidence is weighted by its squared mean over the seen anomalies, each left out in turn. The weights are shrunk
    towards a prior without anomalies: equal weights, but memories by how well they see patches pasted elsewhere
    (CutPaste). With two or more anomalies AHL learns a factor for each weight.
    """

    names = ("density", "seen")
    trains_on = ((True, True, False), (True, True, False))
    negated = (False, False)
    inputs = ("coarse", "entry", "before", "middle", "context", "pooled")
    folds = FOLDS
    copied = 64
    fusion: Tensor  # weight of each evidence before learning, float [K]
    wide: Tensor  # weight of context in the map, float []
    pooled: Modules[Gaussian]
    patches: Modules[Gaussian]
    banks: Modules[MemoryBank]

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], shots: int) -> None:
        """``shapes``: of the extractor's features; ``shots``: the number of seen anomalies."""
        super().__init__()
        dims = {name: shapes[name][0] for name in (*_PATCHES, "context")}
        dims["texture"] = dims["before"] + dims["middle"]
        wide, coarse = (math.prod(shapes[name][1:]) for name in ("entry", "coarse"))
        spaces = _PATCHES if shots else ("entry",)
        self.pooled = Modules({name: Gaussian(3 * dims[name]) for name in _POOLED})
        self.patches = Modules({n: Gaussian(dims[n], coarse if n == "coarse" else wide) for n in spaces})
        self.banks = Modules({name: MemoryBank(dims[name], _BANK, _AXES.get(name)) for name in _BANKS})
        self.sharp = Gaussian(dims["before"], math.prod(shapes["before"][1:]))  # for the map only
        for name in _POOLED:
            self.register_buffer(f"direction_{name}", torch.zeros(3 * dims[name]))
        for name in _PATCHES:
            self.register_buffer(f"seen_{name}", torch.zeros(shots, _WORST, dims[name]))
        self.joint = Discriminant(3 * sum(dims[name] for name in _PATCHES)) if shots else None
        self.shots = shots
        count = _DENSITIES + (len(_POOLED) + 1 + len(_PATCHES) if shots else 0)
        self.clusters, self.standard = Clusters(dims["coarse"]), Standard(count)
        self.register_buffer("fusion", torch.ones(count))
        self.register_buffer("wide", torch.ones(()))
        # With one anomaly there is nothing to learn: support and query would both hold it.
        self.weight = nn.Parameter(torch.ones(count), requires_grad=shots > 1)

    @torch.no_grad()
    def fit(self, normals: Features, seen: Features, copies: Copies) -> Features:
        """Returns evidence of normals and seen anomalies, each held out: an image that was fitted on looks too normal.

        ConfigError for fewer than 13 normals.
        """
        n = len(normals["pooled"])
        if n < LEAST:
            raise ConfigError(
                f"AHL(Density) needs at least {LEAST} train normals, there are {n}: add images of good parts"
            )
        fold = torch.arange(n) % self.folds
        # A normal's turned copies are held out with it.
        every, of_every = _together(normals, *copies.normals), _first(fold, normals, *copies.normals)
        raw = torch.empty(n, len(self.fusion))
        remembered = torch.empty(len(copies.pasted["pooled"]), len(_BANKS))
        for f in range(self.folds):
            self._fit_spaces(_part(every, of_every != f), seen, copies.seen)
            for places in torch.where(fold == f)[0].split(_CHUNK):
                raw[places] = self._raw(_part(normals, places))
            places = torch.where(fold[: len(remembered)] == f)[0]
            remembered[places] = self._remembered(_part(copies.pasted, places))
        joint = self._fit_spaces(every, seen, copies.seen)
        self._fit_map(every)
        self.clusters.fit(_means(normals))
        self.standard.fit(raw, self.clusters(_means(normals)))
        held_out = self._standard(raw, normals)
        left_out = held_out[:0]
        if self.shots:
            left_out = self._standard(self._left_out(seen, copies.seen, joint), seen)
        known = self._known(raw, remembered)
        self.wide = _WIDE * known[_DENSITIES - 1]
        self.fusion = self._weights(left_out, known)
        self.fusion /= (held_out @ self.fusion).std().clamp_min(1e-6)
        return {"evidence": torch.cat([held_out, left_out.nan_to_num(0)])}

    @torch.no_grad()
    def departure(self, normals: Features, held_out: Features, changed: Sequence[Features]) -> float:
        """For the change and the density with the largest difference."""
        self._fit_densities(normals, _statistics(normals))
        own, *others = (self._densities(f, self._white(_statistics(f))) for f in (held_out, *changed))
        return max(float(((other - own).mean(0) / own.std(0).clamp_min(1e-6)).max()) for other in others)

    def prepare(self, features: Features) -> Features:
        """`evidence` float [N, K]."""
        return {"evidence": self._standard(self._raw(features), features)}

    def heads(self, features: Features) -> Tensor:
        weighed = features["evidence"] * (self.fusion * self.weight)
        density = weighed[..., :_DENSITIES].sum(-1)
        # Written out, because engines disagree about the sum of no values.
        seen = weighed[..., _DENSITIES:].sum(-1) if self.shots else torch.zeros_like(density)
        return torch.stack([density, seen], dim=-1)

    def losses(self, heads: Tensor, group: Tensor, mu: float, sigma: float) -> Tensor:
        """The deviation loss of the total: a single head need not separate anomalies from normals."""
        half = heads.sum(-1, keepdim=True).expand_as(heads)
        return super().losses(half, group, mu, sigma) / heads.shape[-1]

    def maps(self, features: Features) -> Tensor:
        """The sum of log distances: of entry, of the whole map of before, and of context, weighted by trust."""
        sharp = Gaussian.distance(self.sharp(features["before"].flatten(2).mT))
        sharp = sharp.unflatten(1, features["before"].shape[-2:])
        entry = Gaussian.distance(self.patches["entry"](_patches(features, "entry")))
        # A normal patch may be in the memory itself, at distance 0. There a plain log would depend on rounding.
        context = (1 + self.banks["context"](_patches(features, "context"))).log()
        wide = (_log(entry) + self.wide * context).unflatten(1, features["entry"].shape[-2:])
        return _log(sharp) + F.interpolate(wide.unsqueeze(1), sharp.shape[-2:], mode="bilinear").squeeze(1)

    def _fit_spaces(self, normals: Features, seen: Features, turned: Sequence[Features]) -> Tensor:
        """Fit the densities, and what the seen anomalies look like in them; ``turned``: copies of the anomalies.

        Returns each seen anomaly's discriminant value from the other anomalies, float [M].
        """
        statistics = _statistics(normals)
        self._fit_densities(normals, statistics)
        if self.joint is None:
            return torch.empty(0)
        looks = [_statistics(look) for look in (seen, *turned)]
        for name, gaussian in self.pooled.items():
            setattr(self, f"direction_{name}", _unit(_mean_white(gaussian, name, looks).mean(0)))
        for name, gaussian in self.patches.items():
            gaussian.fit(_patches(normals, name))
            setattr(self, f"seen_{name}", _worst(gaussian(_patches(seen, name))))
        return self.joint.fit(_joined(statistics), torch.stack([_joined(look) for look in looks]))

    def _fit_densities(self, normals: Features, statistics: Features) -> None:
        """Fit the memories, and the Gaussians of pooled statistics."""
        for name, bank in self.banks.items():
            bank.fit(_patches(normals, name))
        for name, gaussian in self.pooled.items():
            gaussian.fit(statistics[name])

    def _fit_map(self, normals: Features) -> None:
        self.sharp.fit(normals["before"].flatten(2).mT)
        if not self.shots:  # else the patches of entry are fitted already
            self.patches["entry"].fit(_patches(normals, "entry"))

    def _raw(self, features: Features) -> Tensor:
        """Evidence before standardisation, float [N, K]: densities, then likeness to the seen anomalies."""
        statistics = _statistics(features)
        white = self._white(statistics)
        densities = self._densities(features, white)
        if self.joint is None:
            return densities
        found = [self.joint(_joined(statistics))]
        found += [white[name][:, 0] @ getattr(self, f"direction_{name}") for name in _POOLED]
        found += [self._likeness(name, _patches(features, name)).mean(-1) for name in _PATCHES]
        return torch.cat([densities, torch.stack(found, dim=-1)], dim=-1)

    def _white(self, statistics: Features) -> Features:
        return {name: gaussian(statistics[name]) for name, gaussian in self.pooled.items()}

    def _densities(self, features: Features, white: Features) -> Tensor:
        """Densities of pooled statistics, then of the memories, float [N, densities]."""
        pooled = [Gaussian.log_density(Gaussian.distance(white[name])) for name in ("before", "coarse")]
        return torch.cat([torch.stack(pooled, dim=-1), self._remembered(features)], dim=-1)

    def _remembered(self, features: Features) -> Tensor:
        """For each memory, the log distance of a frame's farthest patch, float [N, memories]."""
        return torch.stack([_log(bank(_patches(features, name)).amax(-1)) for name, bank in self.banks.items()], dim=-1)

    def _likeness(self, name: str, patches: Tensor) -> Tensor:
        """Likeness to each seen anomaly, float [N, M]: mean over the worst patches of the cosine to its nearest."""
        white, seen = self.patches[name](patches), getattr(self, f"seen_{name}")
        distance = Gaussian.distance(white)
        cosine = (_unit(white) @ seen.flatten(0, 1).T).unflatten(2, seen.shape[:2]).amax(-1)
        # Chosen by distance, not by index: every engine compares alike, few gather alike.
        among = (distance >= distance.topk(_WORST, dim=1).values[:, -1:]).to(distance.dtype)
        likeness: Tensor = (cosine * (among / among.sum(1, keepdim=True)).unsqueeze(-1)).sum(1)
        return likeness

    def _left_out(self, seen: Features, turned: Sequence[Features], joint: Tensor) -> Tensor:
        """Evidence of the seen anomalies, float [M, K]. Likeness is to the others; nan for a single one."""
        raw, others = self._raw(seen), ~torch.eye(self.shots, dtype=torch.bool)
        looks, found = [_statistics(look) for look in (seen, *turned)], [joint]
        for name, gaussian in self.pooled.items():
            white = _mean_white(gaussian, name, looks)
            direction = _unit(torch.stack([white[kept].mean(0) for kept in others]))
            found.append((gaussian(looks[0][name])[:, 0] * direction).sum(-1))
        for name in _PATCHES:
            likeness = self._likeness(name, _patches(seen, name)) * others
            found.append(likeness.sum(1) / (self.shots - 1) if self.shots > 1 else joint)
        return torch.cat([raw[:, :_DENSITIES], torch.stack(found, dim=-1)], dim=1)

    def _standard(self, raw: Tensor, features: Features) -> Tensor:
        found: Tensor = self.standard(raw, self.clusters(_means(features)))
        return found

    def _known(self, raw: Tensor, remembered: Tensor) -> Tensor:
        """The weight of each evidence before anomalies are used, float [K].

        A memory's weight is the square of its rise where a patch was pasted elsewhere: from the normals' ``raw``,
        [N, K], to ``remembered``, [P, memories], of the first P normals. Pooled statistics hardly change there.
        """
        memories = raw[:, _MEMORIES]
        rise = (remembered - memories[: len(remembered)]).mean(0) / memories.std(0).clamp_min(1e-6)
        known, seen = torch.ones(len(self.fusion)), rise.clamp_min(0)
        if seen.any():
            known[_MEMORIES] = (seen / seen.max()).square()
        known[_DENSITIES:] = self.shots / (self.shots + PRIOR_LIKENESS)
        return known

    def _weights(self, left_out: Tensor, known: Tensor) -> Tensor:
        """The weight of each evidence, float [K]: from its mean over anomalies, [M, K], shrunk towards ``known``."""
        if self.shots < 2:
            return known
        shown = left_out.clamp(0, _MOST).mean(0).square()
        trust = (self.shots - 1) / (self.shots - 1 + _PRIOR_WEIGHTS)
        return trust * shown / shown.mean().clamp_min(1e-6) + (1 - trust) * known


def _means(features: Features) -> Tensor:
    """The vectors that HADG clusters: means of the last stage at 224 px, float [N, C]."""
    return features["coarse"].mean((2, 3))


def _part(features: Features, places: Tensor) -> Features:
    return {name: values[places] for name, values in features.items()}


def _together(*parts: Features) -> Features:
    """The parts, concatenated. A single part is not copied."""
    first, *more = parts
    if not more:
        return first
    return {name: torch.cat([values, *(part[name] for part in more)]) for name, values in first.items()}


def _first(values: Tensor, *parts: Features) -> Tensor:
    """For each part, as many of the first values as it has images; concatenated."""
    return torch.cat([values[: len(part["pooled"])] for part in parts])


def _mean_white(gaussian: nn.Module, name: str, looks: Sequence[Features]) -> Tensor:
    """Whitened pooled statistics of each anomaly, averaged over its looks, float [M, 3 C]."""
    return torch.stack([gaussian(look[name])[:, 0] for look in looks]).mean(0)


def _statistics(features: Features) -> Features:
    """Pooled statistics of each space of patches, float [N, 1, 3 C]; the features already hold those of ``before``."""
    spaces = (*_POOLED, "middle")
    found = {name: features["pooled"] if name == "before" else pool_statistics(features[name]) for name in spaces}
    return {name: values.unsqueeze(1) for name, values in found.items()}


def _joined(statistics: Features) -> Tensor:
    return torch.cat([values[:, 0] for values in statistics.values()], dim=1)


def _patches(features: Features, name: str) -> Tensor:
    """Smoothed patches, float [N, P, C]. The extractor has already smoothed those at 448 px and those of context."""
    if name == "texture":
        maps = torch.cat([F.avg_pool2d(features["before"], 2), features["middle"]], dim=1)
    elif name == "before":
        maps = F.avg_pool2d(features["before"], 2)
    else:
        maps = smooth(features[name]) if name == "coarse" else features[name]
    return maps.flatten(2).mT


def _worst(white: Tensor) -> Tensor:
    """The patches of whitened float [N, P, D] that lie farthest out, scaled to length 1: [N, worst, D]."""
    places = Gaussian.distance(white).topk(_WORST, dim=1).indices
    return _unit(white.take_along_dim(places.unsqueeze(-1), dim=1))


def _unit(white: Tensor) -> Tensor:
    """Scaled to length 1: only the densities measure how far out a frame lies."""
    return F.normalize(white, dim=-1)


def _log(distance: Tensor) -> Tensor:
    return distance.clamp_min(1e-12).log()


SYSTEM = System(
    "AHL(Density)",
    lambda extractor, shots: Density(extractor.shapes, shots),
    ahl=True,
    schedule="short",
    least=LEAST,
    folds=FOLDS,
)
