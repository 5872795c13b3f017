"""The Gaussian of normality: scikit-learn's distance, white vectors, means of positions, dead channels."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from ahl_train.errors import ConfigError
from ahl_train.heads import gaussian
from ahl_train.heads.gaussian import Gaussian

DIM = 6


def correlated(n, positions=1, seed=0, dim=DIM):
    """float [n, positions, dim]: dimensions of different scale that depend on each other."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(dim, dim)) * np.logspace(-1, 1, dim)
    return torch.tensor(rng.normal(size=(n, positions, dim)) @ mix + np.arange(dim), dtype=torch.float32)


def fitted(vectors):
    model = Gaussian(vectors.shape[-1])
    model.fit(vectors)
    return model


def test_the_distance_is_scikit_learns():
    """Ledoit-Wolf of dimensions brought to one unit; the squared distance is per dimension."""
    train, fresh = correlated(50), correlated(20, seed=1)
    model = fitted(train)
    x = train[:, 0].double().numpy()
    location, scale = x.mean(0), x.std(0)
    reference = LedoitWolf().fit((x - location) / scale)
    expected = reference.mahalanobis((fresh[:, 0].double().numpy() - location) / scale) / DIM
    np.testing.assert_allclose(model.distance(model(fresh))[:, 0].numpy(), expected, rtol=1e-3)


def test_whitened_normals_have_unit_covariance():
    train = correlated(4000)
    white = fitted(train)(train)[:, 0]
    torch.testing.assert_close(white.mean(0), torch.zeros(DIM), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.T.cov(), torch.eye(DIM), atol=0.05, rtol=0)


def test_a_position_has_its_own_mean_shrunk_by_five_frames_worth_of_all():
    """By hand: 10 frames, at the first position 0 and at the second 3."""
    vectors = torch.tensor([0.0, 3.0])[None, :, None].expand(10, 2, DIM) + 0.01 * correlated(10, 2)
    model = Gaussian(DIM, 2)
    model.fit(vectors)
    own = vectors.mean(0)
    torch.testing.assert_close(model.mean, (10 * own + 5 * own.mean(0)) / 15)


def test_what_is_normal_at_one_position_is_not_at_another():
    vectors = 10 * torch.arange(4.0)[None, :, None] + torch.randn(60, 4, DIM)
    model = Gaussian(DIM, 4)
    model.fit(vectors)
    moved = vectors.flip(1)
    assert model.distance(model(moved)).mean() > 10 * model.distance(model(vectors)).mean()


def test_the_log_density_is_half_the_log_of_the_largest_tenth():
    distance = torch.arange(1.0, 21.0)[None]
    assert Gaussian.log_density(distance).item() == pytest.approx(0.5 * np.log(19.5))


@pytest.mark.parametrize("dead", [1, 4])
def test_dead_channels_do_not_explode(dead):
    """Even where most are dead: noise far under the living channels' scale must hardly count."""
    train, fresh = torch.randn(200, 1, DIM), torch.randn(50, 1, DIM)
    train[..., :dead] = 0.3
    fresh[..., :dead] = 0.3 + 1e-3 * torch.randn(50, 1, dead)
    model = fitted(train)
    assert model.distance(model(fresh)).mean() < 2


def test_normals_without_any_variation_stay_finite():
    model = fitted(torch.full((20, 4, DIM), 0.7))
    assert torch.isfinite(model.log_density(model.distance(model(torch.rand(5, 4, DIM))))).all()


def test_all_positions_are_seen_when_there_are_too_many_vectors(monkeypatch):
    """Seven columns, each with its own level; a seventh of the vectors is kept."""
    monkeypatch.setattr(gaussian, "_MOST", 700)
    columns = 3 * torch.randn(7)[None].repeat(100, 7)[..., None] * torch.randn(100, 1, 1) + torch.randn(100, 49, DIM)
    kept, everything = Gaussian(DIM, 49), Gaussian(DIM, 49)
    kept.fit(columns)
    monkeypatch.setattr(gaussian, "_MOST", 4900)
    everything.fit(columns)
    ratio = kept.distance(kept(columns)).mean(0) / everything.distance(everything(columns)).mean(0)
    assert (ratio - 1).abs().max() < 0.3


def test_too_few_normals_are_refused():
    with pytest.raises(ConfigError, match="at least 10 train normals, there are 9"):
        Gaussian(DIM).fit(correlated(9))
    fitted(correlated(10))


def test_what_was_fitted_is_kept_in_the_state():
    model, copy = fitted(correlated(30)), Gaussian(DIM)
    copy.load_state_dict(model.state_dict())
    fresh = correlated(5, seed=1)
    torch.testing.assert_close(copy.distance(copy(fresh)), model.distance(model(fresh)))
    assert not list(model.parameters())
