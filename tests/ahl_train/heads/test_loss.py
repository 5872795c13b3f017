"""The deviation loss, its prior and the top-k mean, against values worked out by hand."""

import pytest
import torch

from ahl_train.heads.loss import MARGIN, deviation_loss, prior, top_k_mean
from ahl_train.rng import Stream, integer


def test_the_deviation_loss_by_hand():
    """mu = 1, sigma = 2: scores of 4, -3, 15 deviate by 1.5, -2, 7."""
    scores = torch.tensor([4.0, -3.0, 15.0])
    normal = deviation_loss(scores, torch.tensor(False), 1.0, 2.0)
    anomalous = deviation_loss(scores, torch.tensor(True), 1.0, 2.0)
    assert MARGIN == 5.0
    torch.testing.assert_close(normal, torch.tensor([1.5, 2.0, 7.0]))
    torch.testing.assert_close(anomalous, torch.tensor([3.5, 7.0, 0.0]))


def test_labels_broadcast_and_the_margin_can_be_set():
    scores = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    loss = deviation_loss(scores, torch.tensor([[False], [True]]), 0.0, 1.0, margin=2.5)
    torch.testing.assert_close(loss, torch.tensor([[0.0, 1.0], [0.5, 0.0]]))


def test_gradients_push_normals_to_the_mean_and_anomalies_beyond_the_margin():
    scores = torch.tensor([2.0, -2.0, 2.0, 12.0], requires_grad=True)
    deviation_loss(scores, torch.tensor([False, False, True, True]), 0.0, 2.0).sum().backward()
    torch.testing.assert_close(scores.grad, torch.tensor([0.5, -0.5, -0.5, 0.0]))


def test_the_prior_is_5000_standard_normal_draws():
    generator = torch.Generator().manual_seed(integer(7, Stream.PRIOR))
    draws = torch.randn(5000, generator=generator, dtype=torch.float64)
    mean = sum(draws.tolist()) / 5000
    variance = sum((d - mean) ** 2 for d in draws.tolist()) / 4999
    assert prior(7) == pytest.approx((mean, variance**0.5))
    mu, sigma = prior()
    assert abs(mu) < 4 / 5000**0.5
    assert abs(sigma - 1) < 4 / 10000**0.5
    assert prior(0) == prior(0) != prior(1)


def test_the_prior_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    prior(5)
    assert torch.rand(1) == expected


def test_the_top_k_mean_by_hand():
    """The two highest of twenty, not the first two; several maps at once."""
    maps = torch.stack([torch.arange(20.0).view(4, 5), -torch.arange(20.0).view(4, 5)])
    torch.testing.assert_close(top_k_mean(maps), torch.tensor([18.5, -0.5]))
    torch.testing.assert_close(top_k_mean(maps, 0.25), torch.tensor([17.0, -2.0]))
    assert top_k_mean(torch.rand(2, 3, 14, 14)).shape == (2, 3)


def test_the_top_k_mean_takes_19_of_196_and_one_at_least():
    hot = torch.zeros(14, 14)
    hot.view(-1)[:20] = 1.0
    assert top_k_mean(hot) == 1.0
    hot.view(-1)[18:] = 0.0
    torch.testing.assert_close(top_k_mean(hot), torch.tensor(18 / 19))
    assert top_k_mean(torch.tensor([[1.0, 3.0], [2.0, 0.0]])) == 3.0
