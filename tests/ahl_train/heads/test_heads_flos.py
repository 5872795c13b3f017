"""FLOS: the focal loss by hand, which samples it learns from, that training separates."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ahl_train.heads.base import NORMAL, PSEUDO, SEEN
from ahl_train.heads.flos import FLOS, focal_loss

C = 3  # the channels of conftest's features


def make():
    torch.manual_seed(0)
    return FLOS(C)


def test_the_focal_loss_by_hand():
    """Logit log 3 is a probability of 3/4: right for the anomaly, wrong for the normal."""
    heads = torch.full((2, 3, 1), math.log(3))
    losses = make().losses(heads, torch.tensor([NORMAL, SEEN, PSEUDO]), 0.0, 1.0)
    anomaly = 0.25 * (1 / 4) ** 2 * math.log(4 / 3)
    normal = 0.75 * (3 / 4) ** 2 * math.log(4)
    torch.testing.assert_close(losses, torch.tensor([normal, anomaly, anomaly])[:, None].expand(2, 3, 1))


def test_the_focal_loss_is_finite_at_extreme_logits():
    extreme = torch.tensor([[-1e4], [1e4]], requires_grad=True)
    focal_loss(extreme, torch.tensor([[True], [False]])).sum().backward()
    assert torch.isfinite(extreme.grad).all()


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


@pytest.mark.parametrize(
    ("group", "expected"),
    [(NORMAL, {"point.weight", "point.bias"}), (SEEN, {"point.weight", "point.bias"}), (PSEUDO, set())],
)
def test_learns_from_normals_and_seen_anomalies_only(features, moved_by, group, expected):
    assert moved_by(make(), features(4, seed=1), group) == expected


def test_training_separates(features, trained):
    """Anomalies of fresh draws, their features shifted; the weights begin with the wrong sign."""
    base = make()
    torch.nn.init.constant_(base.point.weight, -0.5)
    trained(base, [features(40), features(10, seed=1, shift=0.1), features(20, seed=2, shift=-0.3)])
    normals, anomalies = features(40, seed=3), features(40, seed=4, shift=0.1)
    scores = base.total(base({name: torch.cat([normals[name], anomalies[name]]) for name in base.inputs}))
    assert roc_auc_score([0] * 40 + [1] * 40, scores.detach()) > 0.9
