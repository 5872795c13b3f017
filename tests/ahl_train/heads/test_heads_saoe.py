"""SAOE: the cross-entropy by hand, which samples it learns from, that training separates."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ahl_train.heads.base import NORMAL, PSEUDO, SEEN
from ahl_train.heads.saoe import SAOE

C = 3  # the channels of conftest's features


def make():
    torch.manual_seed(0)
    return SAOE(C)


def test_the_cross_entropy_by_hand():
    """Logit log 3 is a probability of 3/4: right for the anomalies, wrong for the normal."""
    heads = torch.full((2, 3, 1), math.log(3))
    losses = make().losses(heads, torch.tensor([NORMAL, SEEN, PSEUDO]), 0.0, 1.0)
    expected = torch.tensor([math.log(4), math.log(4 / 3), math.log(4 / 3)])
    torch.testing.assert_close(losses, expected[:, None].expand(2, 3, 1))


def test_the_score_is_a_linear_classifier_of_the_pooled_features(features):
    base, frames = make(), features(4)
    pooled = (frames["fine"].mean((2, 3)) + frames["coarse"].mean((2, 3))) / 2
    expected = pooled @ base.point.weight[0] + base.point.bias
    torch.testing.assert_close(base.total(base(frames)), expected)


def test_the_map_is_the_classifier_at_each_position(features):
    base, frames = make(), features(4)
    assert base.maps(frames).shape == (4, 14, 14)
    constant = {name: f.mean((2, 3), keepdim=True).expand_as(f) for name, f in frames.items() if name in base.inputs}
    expected = base.total(base(frames))[:, None, None].expand(4, 14, 14)
    torch.testing.assert_close(base.maps(constant), expected)


@pytest.mark.parametrize("group", [NORMAL, SEEN, PSEUDO])
def test_learns_from_every_sample(features, moved_by, group):
    assert moved_by(make(), features(4, seed=1), group) == {"point.weight", "point.bias"}


def test_training_separates(features, trained):
    """Anomalies of fresh draws, their features shifted; the weights begin with the wrong sign."""
    base = make()
    torch.nn.init.constant_(base.point.weight, -0.5)
    trained(base, [features(40), features(10, seed=1, shift=0.1), features(20, seed=2, shift=0.2)])
    normals, anomalies = features(40, seed=3), features(40, seed=4, shift=0.1)
    scores = base.total(base({name: torch.cat([normals[name], anomalies[name]]) for name in base.inputs}))
    assert roc_auc_score([0] * 40 + [1] * 40, scores.detach()) > 0.9
