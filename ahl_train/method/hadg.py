"""HADG: heterogeneous anomaly distributions, each with a support and a query set (supplement, section B.1)."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from ahl_train.config import Grouping, Overlap
from ahl_train.errors import ConfigError
from ahl_train.features.clusters import CLUSTERS, k_means
from ahl_train.features.pseudo_anomalies import AUGMENTATIONS

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Subset:
    """A support or a query set: indices into the train normals and the seen anomalies.

    ``pseudo``: the normals that the distribution's augmentation turns into pseudo anomalies.
    """

    normal: Indices
    seen: Indices
    pseudo: Indices


@dataclass(frozen=True)
class Distribution:
    """One heterogeneous anomaly distribution D_i = {D_i^s, D_i^q}."""

    support: Subset
    query: Subset
    augmentation: str | None  # a key of AUGMENTATIONS; None without pseudo anomalies


def check_clusters(clusters: int, normals: int) -> None:
    """ConfigError for fewer than 4 train normals per cluster."""
    if normals < 4 * clusters:
        fewer = f"ask for {normals // 4} clusters or fewer, " if normals >= 8 else ""
        raise ConfigError(
            f"{clusters} clusters need at least {4 * clusters} train normals, there are {normals}: "
            f"{fewer}hold fewer out with --calibration, or add images of good parts"
        )


def generate(
    normal_features: NDArray[np.floating],
    n_seen: int,
    rng: np.random.Generator,
    *,
    clusters: int = CLUSTERS,
    grouping: Grouping = "clusters",
    augmentations: tuple[str, ...] = tuple(AUGMENTATIONS),
    overlap: Overlap = "none",
    pseudo: int | None = None,
) -> tuple[Distribution, ...]:
    """One distribution per ordered pair of K clusters, and one of all normals split in two: K (K - 1) + 1 in all.

    ``normal_features`` float [N, D] are clustered by K-means (``grouping="random"``: split at random, Table 4's
    +CDL). Half of the ``n_seen`` anomalies go to the support and half to the query; a single one goes to both.
    ``overlap`` (Table 5) copies half of the support's samples into the query, half of the query's into the support, or
    both. ``pseudo`` limits the pseudo anomalies of a set; the default is half of its normals.
    ConfigError for fewer than 4 normals per cluster.
    """
    # Seen anomalies have their own stream, so that the normals' groups don't depend on the number of shots.
    rng, seen_rng = rng.spawn(2)
    n = len(normal_features)
    check_clusters(clusters, n)
    labels = _group(normal_features, clusters, grouping, rng)
    groups = [np.flatnonzero(labels == c) for c in range(clusters)]
    halves = np.array_split(rng.permutation(n), 2)
    pairs = [*permutations(groups, 2), (halves[0], halves[1])]
    deals = []
    for support, query in pairs:
        augmentation = str(rng.choice(augmentations)) if augmentations else None
        s_seen, q_seen = _split_seen(n_seen, seen_rng)
        s = _subset(support, s_seen, rng, augmentation, pseudo)
        q = _subset(query, q_seen, rng, augmentation, pseudo)
        s_more = _half(q, rng) if overlap in ("support", "both") else None
        q_more = _half(s, rng) if overlap in ("query", "both") else None
        deals.append(Distribution(_join(s, s_more), _join(q, q_more), augmentation))
    return tuple(deals)


def _group(features: NDArray[np.floating], clusters: int, grouping: str, rng: np.random.Generator) -> Indices:
    n = len(features)
    at_random = rng.permutation(n) % clusters
    if grouping == "random":
        return at_random
    labels, _ = k_means(features, clusters, seed=int(rng.integers(2**31)))
    # If a cluster is too small to split into normals and pseudo anomalies, a set would be empty: group at random.
    return labels if np.bincount(labels, minlength=clusters).min() >= 2 else at_random


def _split_seen(n: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Half to the support, half to the query; a single one to both."""
    seen = rng.permutation(n)
    return (seen, seen) if n < 2 else (seen[: n // 2], seen[n // 2 :])


def _subset(
    normals: Indices, seen: Indices, rng: np.random.Generator, augmentation: str | None, most: int | None
) -> Subset:
    mixed = rng.permutation(normals)
    half = len(mixed) // 2 if augmentation else 0
    return Subset(normal=mixed[half:], seen=seen, pseudo=mixed[:half][:most])


def _half(subset: Subset, rng: np.random.Generator) -> Subset:
    # Spawned streams, so that copying changes no other draw.
    groups = zip(rng.spawn(3), (subset.normal, subset.seen, subset.pseudo), strict=True)
    return Subset(*(own.permutation(a)[: (len(a) + 1) // 2] for own, a in groups))


def _join(subset: Subset, more: Subset | None) -> Subset:
    if more is None:
        return subset
    pairs = ((subset.normal, more.normal), (subset.seen, more.seen), (subset.pseudo, more.pseudo))
    return Subset(*(np.union1d(a, b) for a, b in pairs))
