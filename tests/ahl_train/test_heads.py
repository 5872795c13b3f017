"""The bases and their layers: scores by hand, shapes, and which samples each head learns from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ahl_train.heads.base import NORMAL, PSEUDO, SEEN
from ahl_train.heads.devnet import DevNet
from ahl_train.heads.dra import DRA
from ahl_train.heads.layers import BatchNormRelu, PointScore, mean_of_scales, pool_statistics
from ahl_train.heads.plus import Plus
from ahl_train.loss import top_k_mean

C, B, D, SHOTS = 3, 1, 2, 4  # the channels of conftest's features, seen anomalies


def make(kind, features):
    torch.manual_seed(0)
    base = Plus(C, B, D, SHOTS) if kind is Plus else kind(C)
    base.fit_normals(features(24))
    base.fit_seen(features(24), features(SHOTS, seed=3, shift=1.0))
    for p in base.parameters():
        nn.init.normal_(p, std=0.3)
    return base


@pytest.fixture(params=[DevNet, DRA, Plus], ids=lambda kind: kind.__name__)
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
    assert base.maps(frames).shape == (4, 14, 14)
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
    frame["fine"][..., 10:, 10:] += 9
    frame["middle"][..., 10:, 10:] += 9
    frame["coarse"][..., 5:, 5:] += 9
    hot = base.maps(frame)[0]
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


# Plus


def plus(features, shots=SHOTS):
    base = Plus(C, B, D, shots)
    base.fit_normals(features(60))
    return base


def spaces(base, frames):
    """The frames' vectors in each space, whitened, [N, P, D]."""
    vectors = (
        pool_statistics(frames["coarse"])[:, None],
        frames["pooled"][:, None],
        frames["coarse"].flatten(2).mT,
        frames["middle"].flatten(2).mT,
    )
    return [gaussian(v) for gaussian, v in zip(base.gaussians, vectors, strict=True)]


def membership(base, frames):
    return base.clusters(frames["coarse"].mean((2, 3)))


def densities(base, frames):
    """float [N, 4], each standardised by hand within its clusters."""
    m = membership(base, frames)
    raw = torch.stack([g.log_density(g.distance(w)) for g, w in zip(base.gaussians, spaces(base, frames), strict=True)])
    level = torch.stack([m @ s.level[:, 0] for s in base.density])
    return ((raw - level) / torch.stack([m @ s.spread for s in base.density])).T


def likeness(base, seen, frames, space):
    """float [N, M], with numpy: the mean, over a frame's worst patches, of the cosine to a seen frame's nearest."""
    count = 1 if space < 2 else 5

    def worst(frames):
        white = spaces(base, frames)[space].numpy().astype(float)
        order = np.argsort(-(white**2).mean(2), axis=1)[:, :count]
        kept = np.take_along_axis(white, order[..., None], axis=1)
        return kept / np.linalg.norm(kept, axis=2, keepdims=True)

    return np.einsum("npd,mqd->npmq", worst(frames), worst(seen)).max(3).mean(1)


def standardised(values, of, base, frames, normals):
    """``values`` [N] in standard deviations of the normals' ``of`` [N], by cluster, each shrunk by 10 normals."""
    m, own = membership(base, normals).numpy().astype(float), membership(base, frames).numpy().astype(float)
    n = m.sum(0) + 10
    level = (m.T @ of + 10 * of.mean()) / n
    rest = (of - m @ level) ** 2
    return (values - own @ level) / (own @ np.sqrt((m.T @ rest + 10 * rest.mean()) / n))


def test_plus_learns_from_normals_and_seen_anomalies_and_never_its_densities(features, moved_by):
    base = make(Plus, features)
    buffers = {name: b.clone() for name, b in base.named_buffers()}
    for group, moved in ((NORMAL, {"weight"}), (SEEN, {"weight"}), (PSEUDO, set())):
        assert moved_by(base, features(4, seed=1), group) == moved
    for name, b in base.named_buffers():
        assert torch.equal(b, buffers[name])


def test_plus_without_anomalies_is_the_sum_of_its_densities(features):
    base, frames = plus(features, shots=0), features(5, seed=1)
    base.fit_seen(features(60), features(0))
    heads = base(frames)
    assert torch.equal(heads[:, 1], torch.zeros(5))
    torch.testing.assert_close(base.total(heads), densities(base, frames).sum(1))
    assert base.total(base(features(5, seed=2, shift=3.0))).min() > base.total(heads).max()
    assert not any(p.requires_grad for p in base.parameters())


def test_plus_densities_are_those_of_fresh_normals_within_their_cluster(features):
    """Two kinds of normals, one of them scattered wider: neither counts as less normal than the other."""
    narrow, wide = features(60, seed=5), features(60, seed=6, shift=4.0)
    wide = {name: 3 * (f - f.mean()) + f.mean() + 4 for name, f in wide.items()}
    normals = {name: torch.cat([f, wide[name]]) for name, f in narrow.items()}
    base = Plus(C, B, D, SHOTS)
    base.fit_normals(normals)
    m = membership(base, normals)
    assert set(m[:60].argmax(1).tolist()).isdisjoint(m[60:].argmax(1).tolist())
    mean = torch.stack([densities(base, f).mean(0) for f in (narrow, wide)])
    apart = (mean[0] - mean[1]).abs().mean()
    for standard in base.density:  # as if there were one cluster only
        standard.level[:], standard.spread[:] = standard.level.mean(0), standard.spread.mean()
    one = torch.stack([densities(base, f).mean(0) for f in (narrow, wide)])
    assert apart < 0.5 * (one[0] - one[1]).abs().mean()


def test_plus_parts_add_up_to_its_heads(features):
    base, frames = plus(features), features(5, seed=1)
    base.fit_seen(features(60), features(SHOTS, seed=3, shift=1.0))
    prepared, heads = base.prepare(frames), base(frames)
    torch.testing.assert_close(prepared["density"], densities(base, frames))
    torch.testing.assert_close(heads[:, 0], prepared["density"].sum(1))
    torch.testing.assert_close(heads[:, 1], SHOTS / (SHOTS + 5) * base.seen(prepared).sum(1))
    torch.testing.assert_close(base(prepared, prepared=True), heads)


def test_plus_seen_head_starts_from_the_mean_likeness_in_the_normals_standard_deviations(features):
    base, normals, seen = plus(features), features(60), features(SHOTS, seed=3, shift=1.0)
    base.fit_seen(normals, seen)
    frames, expected = features(5, seed=1), 0
    for space in range(4):
        ours, of = (likeness(base, seen, f, space).mean(1) for f in (frames, normals))
        expected = expected + standardised(ours, of, base, frames, normals)
    np.testing.assert_allclose(
        base(frames)[:, 1].detach().numpy(), SHOTS / (SHOTS + 5) * expected, rtol=1e-3, atol=1e-3
    )
    assert base(seen)[:, 1].mean() > base(normals)[:, 1].mean() + 1


def test_plus_learned_weights_choose_among_the_seen_anomalies(features):
    """All weight on the second anomaly of the third space: only likeness to it counts."""
    base, normals, seen = plus(features), features(60), features(SHOTS, seed=3, shift=1.0)
    base.fit_seen(normals, seen)
    with torch.no_grad():
        base.weight.zero_()
        base.weight[2, 1] = 1.0
    frames = features(6, seed=1)
    like = torch.tensor(likeness(base, seen, frames, 2)[:, 1])
    m, standard = membership(base, frames).double(), base.likeness[2]
    expected = (like - m @ standard.level[:, 1].double()) / (m @ standard.spread.double())
    np.testing.assert_allclose(
        base(frames)[:, 1].detach(), SHOTS / (SHOTS + 5) * expected / SHOTS, rtol=1e-3, atol=1e-3
    )
