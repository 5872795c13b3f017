"""The bases and their layers: scores by hand, shapes, and which samples each head learns from."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ahl_train.features.maps import pool_statistics
from ahl_train.heads.base import NORMAL, PSEUDO, SEEN, Copies
from ahl_train.heads.density import Density
from ahl_train.heads.devnet import DevNet
from ahl_train.heads.dra.head import DRA
from ahl_train.heads.layers import BatchNormRelu, PointScore, mean_of_scales
from ahl_train.heads.loss import top_k_mean

C, SHOTS = 3, 4  # the channels of conftest's features, seen anomalies


def shapes(features):
    return {name: f.shape[1:] for name, f in features(1).items()}


def make(kind, features):
    torch.manual_seed(0)
    base = Density(shapes(features), SHOTS) if kind is Density else kind(C)
    base.fit(features(24), features(SHOTS, seed=3, shift=1.0), Copies(features(8, shift=2.0)))
    for p in base.parameters():
        nn.init.normal_(p, std=0.3)
    return base


@pytest.fixture(params=[DevNet, DRA, Density], ids=lambda kind: kind.__name__)
def base(request, features):
    return make(request.param, features)


def rows_learned(parameter):
    return [bool(row.abs().max() > 0) for row in parameter.grad]


def test_shapes(base, features):
    base.eval()
    frames = features(4, seed=1)
    heads = base(frames)
    assert heads.shape == (4, len(base.names))
    assert len(base.names) == len(base.trains_on) == len(base.negated)
    assert base.total(heads).shape == (4,)
    side = 28 if isinstance(base, Density) else 14
    assert base.maps(frames).shape == (4, side, side)
    assert torch.isfinite(base.maps(frames)).all()


def test_a_frames_score_does_not_depend_on_its_neighbours_in_evaluation(base, features):
    base.fit_norms(features(24))
    base.eval()
    frames = features(4, seed=1)
    alone = {name: f[:1] for name, f in frames.items()}
    torch.testing.assert_close(base(alone), base(frames)[:1])


def test_the_map_is_hot_where_the_frame_is_odd(base, features):
    """The lower right corner at both scales carries a large value."""
    base.fit_norms(features(24))
    base.eval()
    frame = features(1, seed=1)
    for name in ("fine", "entry", "middle", "context"):
        frame[name][..., 10:, 10:] += 9
    frame["before"][..., 20:, 20:] += 9
    frame["coarse"][..., 5:, 5:] += 9
    hot = F.avg_pool2d(base.maps(frame), 2)[0] if isinstance(base, Density) else base.maps(frame)[0]
    assert hot[10:, 10:].mean() > 2 * hot[:10, :10].mean()


# Layers


def test_batch_norm_is_torchs_in_training_and_in_evaluation_after_fit():
    ours, torchs = BatchNormRelu(C), nn.BatchNorm2d(C, momentum=1.0)
    for norm in (ours, torchs):
        torch.manual_seed(1)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    maps, fresh = torch.randn(6, C, 5, 4) * 3 + 1, torch.randn(2, C, 5, 4)
    torch.testing.assert_close(ours(maps), torchs(maps).relu(), atol=1e-5, rtol=1e-5)
    ours.fit(maps)
    # torch keeps the unbiased variance for evaluation.
    torch.testing.assert_close(ours.mean, torchs.running_mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.var * 120 / 119, torchs.running_var, atol=1e-5, rtol=1e-5)
    torchs.running_var = ours.var.clone()
    torch.testing.assert_close(ours.eval()(fresh), torchs.eval()(fresh).relu(), atol=1e-5, rtol=1e-5)


def test_batch_norms_gradients_are_torchs_also_where_samples_count_several_times():
    ours, torchs = BatchNormRelu(C).double(), nn.BatchNorm2d(C).double()
    torch.manual_seed(1)
    times = torch.tensor([3, 1, 0, 2])
    maps = torch.randn(4, C, 5, 4, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(4, C, 5, 4, dtype=torch.float64)
    for norm in (ours, torchs):
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(2))
        nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(3))
    repeated = torchs(maps.repeat_interleave(times, 0)).relu()
    wanted = torch.autograd.grad(
        (repeated * upstream.repeat_interleave(times, 0)).sum(), (maps, torchs.weight, torchs.bias)
    )
    found = ours(maps, times.double())
    given = torch.autograd.grad((found * upstream * times[:, None, None, None]).sum(), (maps, ours.weight, ours.bias))
    for a, b in zip(given, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_a_point_score_is_a_1x1_convolution():
    point, maps = PointScore(C, 2), torch.randn(4, C, 7, 5)
    nn.init.normal_(point.bias)
    expected = F.conv2d(maps, point.weight[:, :, None, None], point.bias)
    torch.testing.assert_close(point(maps), expected)
    torch.testing.assert_close(point.channels_last(maps), expected)


def test_pooled_statistics_by_hand():
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [2.0, 2.0]]]])
    expected = torch.tensor([[4.0, 2.0, 5**0.5, 1e-6, 7.0, 2.0]])
    torch.testing.assert_close(pool_statistics(maps), expected)


def test_scales_are_averaged():
    both = {"fine": torch.tensor([1.0, 2.0]), "coarse": torch.tensor([3.0, 8.0])}
    torch.testing.assert_close(mean_of_scales(lambda f: 2 * f, both), torch.tensor([4.0, 10.0]))


# DevNet


def test_devnet_by_hand(features):
    """The weights read channel 0: the mean of its top tenth of |values|, averaged over the scales."""
    base, frames = DevNet(C), features(2)
    with torch.no_grad():
        base.point.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    fine = frames["fine"][:, 0].abs().flatten(1).sort(descending=True).values[:, :19].mean(1)
    coarse = frames["coarse"][:, 0].abs().flatten(1).sort(descending=True).values[:, :4].mean(1)
    torch.testing.assert_close(base(frames)[:, 0], (fine + coarse) / 2)
    torch.testing.assert_close(base.total(base(frames)), (fine + coarse) / 2)


@pytest.mark.parametrize("group", [NORMAL, SEEN, PSEUDO])
def test_devnet_learns_from_every_sample(features, moved_by, group):
    assert moved_by(make(DevNet, features), features(4, seed=1), group) == {"point.weight", "point.bias"}


# DRA


def test_dras_total_negates_normality():
    heads = torch.tensor([[2.0, 3.0, 5.0, 7.0]])
    assert DRA(C).total(heads) == 13.0


def test_dras_heads_by_a_second_implementation(features):
    """Everything written out with torch's own layers, per scale."""
    base, frames = make(DRA, features).train(), features(5, seed=1)
    normals = features(24)
    expected = 0
    for scale in ("fine", "coarse"):
        x, reference = frames[scale], normals[scale][:5].mean(0)
        holistic = base.holistic(F.adaptive_avg_pool2d(x, 1).flatten(1))
        points = F.conv2d(x, base.abnormality.weight[..., None, None], base.abnormality.bias)
        norm = base.residual_norm[scale]
        residual = F.conv2d(reference - x, base.residual_conv, padding=1)
        residual = F.relu(F.batch_norm(residual, None, None, norm.weight, norm.bias, training=True))
        residual = F.conv2d(residual, base.residual_point.weight[..., None, None], base.residual_point.bias)
        scores = [holistic] + [top_k_mean(m.abs())[:, None] for m in (points[:, 0], points[:, 1], residual[:, 0])]
        expected = expected + torch.cat(scores, 1) / 2
    torch.testing.assert_close(base(frames), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("group", "rows"), [(NORMAL, [True, True]), (SEEN, [True, False]), (PSEUDO, [False, True])], ids=str
)
def test_dras_seen_head_ignores_pseudo_anomalies_and_its_pseudo_head_the_seen(features, moved_by, group, rows):
    """The rows of the abnormality weights are the seen and the pseudo head; the other two learn from all."""
    base = make(DRA, features)
    moved = moved_by(base, features(4, seed=1), group)
    assert rows_learned(base.abnormality.weight) == rows
    assert {"holistic.0.weight", "residual_conv", "residual_point.weight", "residual_norm.fine.weight"} <= moved


def test_dra_raises_normality_for_normals_and_lowers_it_for_anomalies(features, loss_of):
    base, frames = make(DRA, features), features(4, seed=1)
    loss_of(base, frames, NORMAL)
    assert base.holistic[2].bias.grad.item() == pytest.approx(-1, abs=0.05)  # towards the margin
    with torch.no_grad():
        base.holistic[2].bias += 10
    loss_of(base, frames, SEEN)
    assert base.holistic[2].bias.grad.item() == pytest.approx(1, abs=0.05)  # back to the prior's mean


def test_dras_reference_is_the_mean_of_five_normals(features):
    base = make(DRA, features)
    torch.testing.assert_close(base.reference_fine, features(24)["fine"][:5].mean(0))
    torch.testing.assert_close(base.reference_coarse, features(24)["coarse"][:5].mean(0))
