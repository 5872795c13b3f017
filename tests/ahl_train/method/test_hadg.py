"""HADG: which normals and seen anomalies each distribution's support and query are dealt."""

from itertools import permutations

import numpy as np
import pytest

from ahl_train.errors import ConfigError
from ahl_train.features.pseudo_anomalies import AUGMENTATIONS
from ahl_train.method.hadg import generate

N = 60


def blobs(n=N, clusters=3):
    """Well separated clusters of unequal size, shuffled, so that an index says nothing about its cluster."""
    labels = np.random.default_rng(0).permutation(np.arange(n) % (clusters + 1) % clusters)
    return np.eye(clusters)[labels] * 20 + np.random.default_rng(1).normal(size=(n, clusters)), labels


def deal(n_seen=10, seed=0, **switches):
    return generate(blobs()[0], n_seen, np.random.default_rng(seed), **switches)


def normals(subset):
    return set(subset.normal.tolist()) | set(subset.pseudo.tolist())


def test_every_ordered_pair_of_true_clusters_and_all_normals_halved():
    _, labels = blobs()
    *pairs, mixed = deal()
    true = [frozenset(np.flatnonzero(labels == c).tolist()) for c in range(3)]
    dealt = {(frozenset(normals(d.support)), frozenset(normals(d.query))) for d in pairs}
    assert dealt == set(permutations(true, 2))
    assert normals(mixed.support) | normals(mixed.query) == set(range(N))
    assert {len(normals(mixed.support)), len(normals(mixed.query))} == {N // 2}
    assert len({labels[i] for i in normals(mixed.support)}) == 3


@pytest.mark.parametrize("clusters", [2, 3, 4])
def test_k_clusters_give_k_times_k_minus_1_pairs_and_one(clusters):
    dealt = generate(blobs(80, clusters)[0], 10, np.random.default_rng(0), clusters=clusters)
    assert len(dealt) == clusters * (clusters - 1) + 1


@pytest.mark.parametrize("grouping", ["clusters", "random"])
def test_support_and_query_are_disjoint(grouping):
    for d in deal(grouping=grouping):
        assert not normals(d.support) & normals(d.query)
        assert not set(d.support.seen) & set(d.query.seen)


def test_ten_seen_anomalies_are_halved_anew_for_each_distribution():
    dealt = deal(10)
    for d in dealt:
        assert len(d.support.seen) == len(d.query.seen) == 5
        assert set(d.support.seen) | set(d.query.seen) == set(range(10))
    assert len({tuple(sorted(d.support.seen)) for d in dealt}) > 1


def test_a_single_seen_anomaly_is_in_both_and_none_in_neither():
    for d in deal(1):
        assert d.support.seen.tolist() == d.query.seen.tolist() == [0]
    for d in deal(0):
        assert len(d.support.seen) == len(d.query.seen) == 0
        assert len(d.support.normal)
        assert len(d.query.pseudo)


def test_half_of_a_sets_own_normals_become_pseudo_anomalies():
    for d in deal():
        for subset in (d.support, d.query):
            assert not set(subset.normal) & set(subset.pseudo)
            assert len(subset.pseudo) == len(normals(subset)) // 2
        assert d.augmentation in AUGMENTATIONS


def test_pseudo_anomalies_can_be_capped_or_left_out():
    for full, capped in zip(deal(), deal(pseudo=3), strict=True):
        assert len(capped.query.pseudo) == min(3, len(full.query.pseudo))
        assert set(capped.query.pseudo) <= set(full.query.pseudo)
        np.testing.assert_array_equal(capped.query.normal, full.query.normal)
    for d in deal(augmentations=()):
        assert d.augmentation is None
        assert len(d.support.pseudo) == len(d.query.pseudo) == 0
    union = set().union(*(normals(d.query) for d in deal(augmentations=())))
    assert union == set(range(N))


def test_augmentations_are_drawn_among_the_chosen():
    drawn = [d.augmentation for seed in range(20) for d in deal(seed=seed)]
    assert set(drawn) == set(AUGMENTATIONS)
    assert {d.augmentation for d in deal(augmentations=("draem",))} == {"draem"}


@pytest.mark.parametrize(
    ("overlap", "into_query", "into_support"),
    [("none", False, False), ("query", True, False), ("support", False, True), ("both", True, True)],
)
def test_overlap_copies_half_of_the_other_set(overlap, into_query, into_support):
    """`query`: the query overlaps the support, and so on; only what is copied differs from no overlap."""
    for plain, mixed in zip(deal(), deal(overlap=overlap), strict=True):
        for name in ("normal", "seen", "pseudo"):
            s, q = set(getattr(plain.support, name)), set(getattr(plain.query, name))
            more_s, more_q = set(getattr(mixed.support, name)), set(getattr(mixed.query, name))
            assert s <= more_s <= s | q
            assert q <= more_q <= s | q
            assert len(more_q - q) == (into_query * (len(s) + 1) // 2)
            assert len(more_s - s) == (into_support * (len(q) + 1) // 2)


def test_random_grouping_ignores_the_features():
    _, labels = blobs()
    *pairs, _ = deal(grouping="random")
    groups = {frozenset(normals(d.support)) for d in pairs}
    assert [len(g) for g in groups] == [20, 20, 20]
    assert frozenset.union(*groups) == set(range(N))
    assert all(len({labels[i] for i in g}) == 3 for g in groups)


@pytest.mark.parametrize("overlap", ["none", "both"])
def test_normals_are_dealt_alike_for_any_number_of_shots(overlap):
    dealt = [deal(shots, overlap=overlap) for shots in (0, 1, 10)]
    for one, *others in zip(*dealt, strict=True):
        for other in others:
            assert one.augmentation == other.augmentation
            for a, b in ((one.support, other.support), (one.query, other.query)):
                np.testing.assert_array_equal(a.normal, b.normal)
                np.testing.assert_array_equal(a.pseudo, b.pseudo)


def test_the_seed_decides():
    def flat(dealt):
        return [a.tolist() for d in dealt for s in (d.support, d.query) for a in (s.normal, s.seen, s.pseudo)]

    assert flat(deal(seed=1)) == flat(deal(seed=1)) != flat(deal(seed=2))


def test_a_cluster_of_one_outlier_falls_back_to_random_groups():
    points = np.random.default_rng(0).normal(size=(30, 2))
    points[0], points[1] = 1e3, -1e3
    for d in generate(points, 10, np.random.default_rng(0)):
        for subset in (d.support, d.query):
            assert len(subset.normal)
            assert len(subset.pseudo)


def test_too_few_normals_are_refused():
    with pytest.raises(ConfigError, match="3 clusters need at least 12 train normals, there are 11"):
        generate(np.zeros((11, 2)), 1, np.random.default_rng(0))
