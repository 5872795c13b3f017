"""MLEP: the margin loss by hand, its centre, which samples it learns from, that training separates."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ahl_train.heads.base import NORMAL, PSEUDO, SEEN
from ahl_train.heads.mlep import MLEP

C = 3  # the channels of conftest's features


def make(normals):
    torch.manual_seed(0)
    base = MLEP(C)
    base.fit_normals(normals)
    return base


def joined(*parts):
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def test_the_margin_loss_by_hand():
    """Normals at 1 and 2, 1.5 on average: anomalies are pushed to 2.5. The second model's are pushed to 1."""
    heads = torch.tensor([[1.0, 2.0, 0.5, 3.0], [0.0, 0.0, 0.25, 1.0]])[..., None]
    losses = MLEP(C).losses(heads, torch.tensor([NORMAL, NORMAL, SEEN, SEEN]), 0.0, 1.0)
    expected = torch.tensor([[1.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.75, 0.0]])[..., None]
    torch.testing.assert_close(losses, expected)


def test_an_anomaly_inside_the_margin_pulls_the_normals_too():
    heads = torch.tensor([1.0, 2.0, 0.5])[:, None].requires_grad_()
    MLEP(C).losses(heads, torch.tensor([NORMAL, NORMAL, SEEN]), 0.0, 1.0)[2].sum().backward()
    torch.testing.assert_close(heads.grad, torch.tensor([0.5, 0.5, -1.0])[:, None])


def test_the_score_is_the_distance_to_the_normals_centre_in_the_embedding(features):
    """Whatever the weights have become since the centre was fitted."""
    normals, frames = features(24), features(4, seed=1)
    base = make(normals)
    torch.nn.init.normal_(base.embedding)
    expected = 0
    for scale in ("fine", "coarse"):
        of_normals, of_frames = (f[scale].mean((2, 3)) @ base.embedding.T for f in (normals, frames))
        spread = normals[scale].mean((2, 3)).var(0, correction=0).mean().sqrt()
        distance = (of_frames - of_normals.mean(0)).norm(dim=1) / 64**0.5
        expected = expected + distance / spread / 2
    torch.testing.assert_close(base.total(base(frames)), expected)


def test_normals_are_at_about_one_before_training(features):
    normals = features(60)
    assert make(normals)(normals).mean().item() == pytest.approx(1, abs=0.3)


def test_a_frame_at_the_centre_has_finite_gradients(features):
    base = make(features(24))
    frame = {name: torch.zeros(1, C, size, size) for name, size in (("fine", 14), ("coarse", 7))}
    for name in frame:
        frame[name] += getattr(base, f"centre_{name}")[:, None, None]
    base(frame).sum().backward()
    assert torch.isfinite(base.embedding.grad).all()


def test_the_map_is_the_distance_at_each_position(features):
    base, frames = make(features(24)), features(4, seed=1)
    assert base.maps(frames).shape == (4, 14, 14)
    constant = {name: f.mean((2, 3), keepdim=True).expand_as(f) for name, f in frames.items() if name in base.inputs}
    expected = base.total(base(frames))[:, None, None].expand(4, 14, 14)
    torch.testing.assert_close(base.maps(constant), expected)


@pytest.mark.parametrize(("group", "expected"), [(NORMAL, {"embedding"}), (SEEN, {"embedding"}), (PSEUDO, set())])
def test_learns_from_normals_and_seen_anomalies_only(features, moved_by, group, expected):
    base = make(features(24))
    assert moved_by(base, features(4), group) == expected


def test_training_separates(features, trained):
    """Anomalies of fresh draws: normals vary in the first channel, anomalies are shifted in the second."""

    def draw(n, seed, shift):
        frames = features(n, seed=seed)
        along = torch.randn(n, 1, 1, generator=torch.Generator().manual_seed(seed))
        for name in ("fine", "coarse"):
            frames[name][:, 0] += along
            frames[name][:, 1] += shift
        return frames

    def auroc(base):
        scores = base.total(base(joined(draw(40, 3, 0.0), draw(40, 4, 0.3))))
        return roc_auc_score([0] * 40 + [1] * 40, scores.detach())

    normals = draw(40, 0, 0.0)
    before = auroc(make(normals))
    base = trained(make(normals), [normals, draw(10, 1, 0.3), draw(10, 2, 0.0)])
    assert before < 0.8
    assert auroc(base) > 0.9
