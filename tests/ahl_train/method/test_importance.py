"""CDL+: r_i and w_i by hand, and psi learning what it is meant to learn."""

import math

import pytest
import torch

from ahl_train.heads.base import NORMAL, PSEUDO, SEEN
from ahl_train.method.importance import Psi, generalisation_error, train_step, weights

GROUP = torch.tensor([NORMAL, NORMAL, SEEN, PSEUDO])
EVERYWHERE = torch.ones(4, 2, dtype=torch.bool)


def test_the_generalisation_error_by_hand():
    """Model 0: 0.5 (0.04 + 0.16) / 2 + 0.25 + 0.5 x 0.01. Model 1 is perfect on all but the seen anomaly."""
    predicted = torch.tensor([[0.2, 0.0], [0.4, 0.0], [0.5, 0.3], [0.9, 1.0]])
    r = generalisation_error(predicted, GROUP, EVERYWHERE)
    torch.testing.assert_close(r, torch.tensor([0.05 + 0.25 + 0.005, 0.49]))


def test_samples_of_a_models_own_support_do_not_count():
    predicted = torch.tensor([[0.2, 0.2], [0.4, 0.4], [0.5, 0.5], [0.9, 0.9]])
    unseen = EVERYWHERE.clone()
    unseen[1, 0] = unseen[2, 1] = False
    r = generalisation_error(predicted, GROUP, unseen)
    torch.testing.assert_close(r, torch.tensor([0.02 + 0.25 + 0.005, 0.05 + 0.0 + 0.005]))


def test_beyond_the_margin_an_anomaly_is_right_and_below_zero_a_normal_is():
    predicted = torch.tensor([[-3.0], [0.0], [1.7], [5.0]])
    assert generalisation_error(predicted, GROUP, EVERYWHERE[:, :1]) == 0


def test_the_weights_by_hand():
    r = torch.tensor([0.0, math.log(2), math.log(4)])
    torch.testing.assert_close(weights(r), torch.tensor([4 / 7, 2 / 7, 1 / 7]))
    torch.testing.assert_close(weights(torch.full((7,), 3.0)), torch.full((7,), 1 / 7))
    assert weights(torch.rand(7) * 100).sum() == pytest.approx(1)


def trend(samples=32, models=3, seed=0):
    """Scores that each climb by an own constant step: [6 epochs, samples, models]."""
    generator = torch.Generator().manual_seed(seed)
    start, step = torch.rand(samples, models, generator=generator), torch.rand(samples, models, generator=generator)
    return start + torch.arange(6.0)[:, None, None] * step * 0.2


def test_training_psi_reduces_its_loss_and_beats_repeating_the_last_score():
    torch.manual_seed(0)
    psi, scores = Psi(models=3), trend()
    optimizer = torch.optim.Adam(psi.parameters(), lr=2e-3)
    losses = [train_step(psi, optimizer, scores) for _ in range(20)]
    assert losses[-1] < losses[0] / 10
    with torch.no_grad():
        predicted = psi(trend(seed=1)[:5].transpose(0, 1))
    target = trend(seed=1)[5]
    assert (predicted - target).square().mean() < (trend(seed=1)[4] - target).square().mean() / 2


def test_a_training_step_fits_the_newest_epoch_from_those_before():
    """The loss it returns is the mean squared error before its last update."""
    torch.manual_seed(0)
    psi, scores = Psi(models=3), trend()
    with torch.no_grad():
        expected = (psi(scores[:5].permute(1, 0, 2)) - scores[5]).square().mean().item()
    assert train_step(psi, torch.optim.SGD(psi.parameters(), lr=0.0), scores, steps=1) == pytest.approx(expected)


def test_psi_is_two_layers_in_both_directions():
    psi = Psi(models=4, hidden=5)
    assert (psi.lstm.num_layers, psi.lstm.bidirectional) == (2, True)
    assert psi(torch.rand(6, 5, 4)).shape == (6, 4)
    history = torch.rand(1, 5, 4)
    changed = history.clone()
    changed[0, 0] += 1
    assert not torch.allclose(psi(history), psi(changed))
