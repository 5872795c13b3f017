"""Clusters of normals, soft memberships, and scores in standard deviations of a cluster's own normals."""

import numpy as np
import pytest
import torch

from ahl_train.features.clusters import Clusters, Standard, k_means


def groups(sizes=(30, 50, 40), dim=4, seed=0):
    """Three groups far apart, one dimension in other units; float32 [N, dim] and the group of each."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    centres = 10 * rng.normal(size=(len(sizes), dim))
    vectors = (centres[group] + rng.normal(size=(len(group), dim))) * [1, 1, 1, 1000]
    return vectors.astype(np.float32), group


def test_k_means_finds_the_groups_whatever_the_units():
    vectors, group = groups()
    labels, centres = k_means(vectors, 3, seed=0)
    found = [set(labels[group == g]) for g in range(3)]
    assert all(len(f) == 1 for f in found) and len(set.union(*found)) == 3
    for g, (label,) in enumerate(found):
        np.testing.assert_allclose(centres[label], vectors[group == g].mean(0), rtol=1e-3)


def test_memberships_add_up_to_one_and_have_no_jump():
    vectors, group = groups()
    clusters = Clusters(4)
    clusters.fit(torch.tensor(vectors))
    own = clusters(torch.tensor(vectors))
    torch.testing.assert_close(own.sum(1), torch.ones(len(own)))
    assert own.max(1).values.min() > 0.99
    a, b = (torch.tensor(vectors[group == g].mean(0)) for g in (0, 1))
    along = clusters(torch.stack([a + t * (b - a) for t in torch.linspace(0, 1, 2001)]))
    assert (along[1:] - along[:-1]).abs().max() < 0.1


def test_scores_are_counted_in_their_own_clusters_deviations():
    """Means 0 and 10, deviations 1 and 5, many normals: both become about standard normal."""
    rng = np.random.default_rng(1)
    member = torch.eye(2).repeat_interleave(4000, 0)
    values = torch.tensor(np.r_[rng.normal(0, 1, 4000), rng.normal(10, 5, 4000)], dtype=torch.float32)[:, None]
    standard = Standard(1, 2)
    standard.fit(values, member)
    found = standard(values, member)[:, 0]
    for part in found.split(4000):
        assert part.mean().item() == pytest.approx(0, abs=0.3)
        assert part.std().item() == pytest.approx(1, abs=0.3)


def test_a_small_cluster_leans_on_the_whole():
    """Two normals among a hundred of the whole's worth: the level is worked out by hand, for each value alone."""
    values = torch.tensor([[0.0, 1.0]] * 18 + [[12.0, 1.0]] * 2)
    member = torch.eye(2)[[0] * 18 + [1] * 2]
    standard = Standard(2, 2)
    standard.fit(values, member)
    mean = 2 * 12 / 20
    assert standard.level[1, 0].item() == pytest.approx((2 * 12 + 100 * mean) / 102)
    assert standard.level[0, 0].item() == pytest.approx(100 * mean / 118)
    assert standard.level[:, 1].tolist() == pytest.approx([1.0, 1.0])


def test_normals_all_alike_stay_finite():
    clusters, standard = Clusters(4), Standard(1)
    vectors = torch.full((20, 4), 0.7)
    clusters.fit(vectors)
    member = clusters(torch.rand(5, 4))
    standard.fit(torch.zeros(20, 1), clusters(vectors))
    assert torch.isfinite(member).all() and torch.isfinite(standard(torch.rand(5, 1), member)).all()
