"""The base of AHL(Density): evidence, weights and map by a second implementation, and what it learns from."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ahl_train.errors import ConfigError
from ahl_train.features.maps import pool_statistics
from ahl_train.heads.base import NORMAL, PSEUDO, SEEN, Copies
from ahl_train.heads.density import Density

SHOTS = 4


def shapes(features):
    return {name: f.shape[1:] for name, f in features(1).items()}


ALTERED = ("entry", "before", "middle", "context")


def altered(features, n=60, names=ALTERED):
    """The first normals with a corner of other patches in the named features."""
    frames = {name: values[:40].clone() for name, values in features(n).items()}
    for name in names:
        frames[name][..., -4:, -4:] += 3
    return frames


def density(features, shots=SHOTS, n=60):
    """A base fitted on n normals and as many seen anomalies, and what it gives for them, held out."""
    base = Density(shapes(features), shots)
    held_out = base.fit(features(n), features(shots, seed=3, shift=1.0), Copies(altered(features, n)))["evidence"]
    return base.eval(), held_out[:n], held_out[n:]


def smoothed(maps):
    """A mean of 3 x 3 with zeros around the map, by a convolution."""
    kernel = torch.full((maps.shape[1], 1, 3, 3), 1 / 9)
    return F.conv2d(maps, kernel, padding=1, groups=maps.shape[1]).flatten(2).mT


def patches(frames):
    return {
        "coarse": smoothed(frames["coarse"]),
        "before": F.avg_pool2d(frames["before"], 2).flatten(2).mT,
        **{name: frames[name].flatten(2).mT for name in ("entry", "middle", "context")},
    }


def pooled(frames):
    by_hand = {name: pool_statistics(frames[name])[:, None] for name in ("coarse", "entry")}
    return {"before": frames["pooled"][:, None], **by_hand}


def whitened(base, frames):
    """Of pooled statistics and of patches, in each space, [N, P, D]."""
    return (
        {name: base.pooled[name](vectors) for name, vectors in pooled(frames).items()},
        {name: gaussian(patches(frames)[name]) for name, gaussian in base.patches.items()},
    )


def worst(white, count=5):
    """The patches that lie farthest out, of length 1, with numpy: [N, count, D]."""
    white = white.numpy().astype(float)
    kept = np.take_along_axis(white, np.argsort(-(white**2).mean(2), axis=1)[:, :count, None], axis=1)
    return kept / np.linalg.norm(kept, axis=2, keepdims=True)


def evidence(base, frames, seen):
    """Raw, by a second implementation, float [N, K]."""
    found = []
    statistics, places = whitened(base, frames)
    seen_statistics, seen_places = whitened(base, seen)
    for name in ("before", "coarse"):
        found.append(0.5 * np.log((statistics[name].numpy() ** 2).mean((1, 2))))
    own = patches(frames)
    own["texture"] = torch.cat([own["before"], own["middle"]], 2)
    for name in ("entry", "texture", "context"):
        bank = base.banks[name]
        given = own[name] if name != "context" else own[name] @ bank.axes
        nearest = torch.cdist(given.double(), bank.bank.double()[None]).amin(-1).square() / bank.scale
        found.append(nearest.amax(1).log().numpy())
    if base.shots:
        everything = [
            *(pooled(frames)[n][:, 0] for n in ("before", "coarse", "entry")),
            pool_statistics(frames["middle"]),
        ]
        found.append(((torch.cat(everything, 1) - base.joint.mean) @ base.joint.direction).numpy())
        for name in ("before", "coarse", "entry"):
            mean = seen_statistics[name][:, 0].mean(0)
            found.append((statistics[name][:, 0] @ mean / mean.norm()).numpy())
        for name in ("entry", "coarse", "before", "middle"):
            cosines = np.einsum("npd,mqd->npmq", worst(places[name]), worst(seen_places[name]))
            found.append(cosines.max(3).mean((1, 2)))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("shots", [0, 1, SHOTS])
def test_density_evidence_by_a_second_implementation(features, shots):
    base, *_ = density(features, shots)
    frames, seen = features(6, seed=1), features(shots, seed=3, shift=1.0)
    member = base.clusters(frames["coarse"].mean((2, 3))).numpy()
    standard = base.standard
    expected = (evidence(base, frames, seen) - member @ standard.level.numpy()) / (member @ standard.spread.numpy())
    np.testing.assert_allclose(base.prepare(frames)["evidence"].numpy(), expected, rtol=1e-2, atol=1e-2)


def test_density_evidence_of_what_it_was_fitted_on_is_that_of_fresh_normals(features):
    """Held out, normals have mean 0 and deviation 1; not held out, they look too normal."""
    base, normals, _ = density(features)
    torch.testing.assert_close(normals.mean(0), torch.zeros(13), atol=0.05, rtol=0)
    torch.testing.assert_close(normals.std(0), torch.ones(13), atol=0.05, rtol=0)
    fresh = base.prepare(features(200, seed=9))["evidence"]
    assert fresh.mean(0).abs().max() < 0.6
    fitted_on = base.prepare(features(60))["evidence"]
    assert fitted_on[:, :5].mean() < fresh[:, :5].mean() - 0.5


def test_density_judges_a_seen_anomaly_by_the_others(features):
    """Of four anomalies one is of another kind: without itself it is like none of them."""
    seen = features(SHOTS, seed=3, shift=1.0)
    for values in seen.values():
        values[0] = -values[0]
    base = Density(shapes(features), SHOTS)
    left_out = base.fit(features(60), seen, Copies(altered(features)))["evidence"][60:]
    assert left_out[0, 5:9].max() < 0
    assert left_out[1:, 5:9].min() > 0.5
    itself = base.prepare(seen)["evidence"]
    assert (itself[:, 9:] > left_out[:, 9:]).all()  # a patch is nearest to its own


def rise(base, features, names, n=60):
    """Of each memory's distance where a corner was altered, by the memories of the folds without a normal."""
    own, changed = memory_patches(features(n)), memory_patches(altered(features, n, names))
    fold, count, found = torch.arange(n) % 5, len(changed["entry"]), []
    for name, given in own.items():
        normal, odd = torch.empty(n), torch.empty(count)
        for f in range(5):
            bank = deepcopy(base.banks[name])
            bank.fit(given[fold != f])
            normal[fold == f] = bank(given).amax(1).log()[fold == f]
            odd[fold[:count] == f] = bank(changed[name]).amax(1).log()[fold[:count] == f]
        found.append((odd - normal[:count]).mean() / normal.std())
    return torch.stack(found).clamp_min(0)


def memory_patches(frames):
    own = patches(frames)
    return {
        "entry": own["entry"],
        "texture": torch.cat([own["before"], own["middle"]], 2),
        "context": own["context"],
    }


def known(base, features, shots, names=ALTERED):
    """What each evidence weighs before anomalies tell: memories as they rise, squared, of the largest."""
    found = rise(base, features, names)
    memories = (found / found.max()) ** 2
    return np.concatenate([[1, 1], memories.numpy(), np.full(8 if shots else 0, shots / (shots + 2))])


def test_density_weighs_what_tells_the_left_out_anomalies(features):
    """Anomalies differ in the last stage at 224 px alone: its evidence weighs most, none weighs nothing."""
    seen = features(SHOTS, seed=3)
    seen["coarse"] += 2.0
    base = Density(shapes(features), SHOTS)
    left_out = base.fit(features(60), seen, Copies(altered(features)))["evidence"][60:]
    said = left_out.clamp(0, 4).mean(0) ** 2
    trust = (SHOTS - 1) / (SHOTS - 1 + 10)
    expected = trust * (said / said.mean()).numpy() + (1 - trust) * known(base, features, SHOTS)
    np.testing.assert_allclose((base.fusion / base.fusion.sum()).numpy(), expected / expected.sum(), rtol=1e-3)
    assert base.fusion[1] > 1.2 * base.fusion[0]
    assert base.fusion.min() > 0


@pytest.mark.parametrize("shots", [0, 1])
def test_density_trusts_evidence_alike_where_no_two_anomalies_say_otherwise(features, shots):
    """But a memory as much as it sees of pasted patches."""
    base, normals, _ = density(features, shots)
    np.testing.assert_allclose((base.fusion / base.fusion[0]).numpy(), known(base, features, shots), rtol=1e-3)
    assert (normals @ base.fusion).std().item() == pytest.approx(1, abs=1e-4)
    assert not any(p.requires_grad for p in base.parameters())


def test_density_trusts_no_memory_that_sees_nothing_of_pasted_patches(features):
    """Context alone shows them; where none does, all count alike."""
    base = Density(shapes(features), 0)
    base.fit(features(60), features(0), Copies(altered(features, names=("context",))))
    assert base.fusion[2] == base.fusion[3] == 0 and base.fusion[4] == base.fusion[0]
    assert base.wide == 4
    base.fit(features(60), features(0), Copies(altered(features, names=())))
    torch.testing.assert_close(base.fusion, base.fusion[:1].expand(5))


@pytest.mark.parametrize("names", [("entry", "context"), ("entry",)])
def test_density_map_by_a_second_implementation(features, names):
    """Of entry, before at full size, and context by its memory, as far as that is trusted."""
    base = Density(shapes(features), 0)
    base.fit(features(60), features(0), Copies(altered(features, names=names)))
    frames = features(4, seed=1)

    def of_gaussian(gaussian, given):
        return ((given.flatten(2).mT - gaussian.mean) @ gaussian.whitening).square().mean(-1).log()

    bank = base.banks["context"]
    nearest = torch.cdist(patches(frames)["context"] @ bank.axes, bank.bank[None]).amin(-1).square() / bank.scale
    trust = known(base, features, 0, names)[4]
    assert (trust > 0) == ("context" in names)
    coarse = of_gaussian(base.patches["entry"], frames["entry"]) + 4 * trust * (1 + nearest).log()
    finer = F.interpolate(coarse.unflatten(1, (14, 14))[:, None], (28, 28), mode="bilinear")[:, 0]
    expected = finer + of_gaussian(base.sharp, frames["before"]).unflatten(1, (28, 28))
    torch.testing.assert_close(base.maps(frames), expected.float(), atol=1e-3, rtol=1e-3)


def test_density_heads_add_up_to_the_weighed_evidence(features):
    base, *_ = density(features)
    frames = features(5, seed=1)
    prepared, heads = base.prepare(frames), base(frames)
    with torch.no_grad():
        base.weight[2] = 3.0
        heads = base(frames)
    weighed = prepared["evidence"] * base.fusion * torch.tensor([1.0, 1, 3] + [1] * 10)
    torch.testing.assert_close(heads.detach(), torch.stack([weighed[:, :5].sum(1), weighed[:, 5:].sum(1)], 1))
    torch.testing.assert_close(base(prepared, prepared=True), heads)


def test_density_learns_from_normals_and_seen_anomalies_and_never_what_was_fitted(features, moved_by):
    base, *_ = density(features)
    for p in base.parameters():
        nn.init.normal_(p, std=0.3)
    buffers = {name: b.clone() for name, b in base.named_buffers()}
    for group, moved in ((NORMAL, {"weight"}), (SEEN, {"weight"}), (PSEUDO, set())):
        assert moved_by(base, features(4, seed=1), group) == moved
    for name, b in base.named_buffers():
        assert torch.equal(b, buffers[name])


def test_density_holds_a_normals_turned_copies_out_with_it(features):
    """Copies that are no other than the normals: a memory that knew them would find no distance, of log -27."""
    alone, *_ = density(features, 0)
    base, normals = Density(shapes(features), 0), features(60)
    base.fit(normals, features(0), Copies(altered(features), (normals, normals)))
    torch.testing.assert_close(base.standard.level[:, 2:], alone.standard.level[:, 2:], atol=0.1, rtol=0)


def test_density_looks_at_a_seen_anomaly_and_its_turned_copies(features):
    """The mean of the looks is its direction; what an anomaly was left out of its copies were too."""
    seen, turned = features(SHOTS, seed=3, shift=1.0), features(SHOTS, seed=4, shift=1.0)
    base = Density(shapes(features), SHOTS)
    left_out = base.fit(features(60), seen, Copies(altered(features), (), (turned,)))["evidence"][60:]
    looks = [{name: base.pooled[name](v)[:, 0] for name, v in pooled(frames).items()} for frames in (seen, turned)]
    for name in ("before", "coarse", "entry"):
        mean = torch.cat([look[name] for look in looks]).mean(0)
        torch.testing.assert_close(getattr(base, f"direction_{name}"), mean / mean.norm(), atol=1e-4, rtol=1e-3)
    same = Density(shapes(features), SHOTS)
    alone = same.fit(features(60), seen, Copies(altered(features), (), (seen,)))["evidence"][60:]
    torch.testing.assert_close(alone, density(features)[2], atol=1e-3, rtol=1e-3)
    assert (left_out - alone).abs().max() > 0.1


def test_density_finds_what_lies_otherwise(features):
    """Other normals do not, but for chance; in a corner, seen by some evidence alone, is enough."""
    base, held_out = Density(shapes(features), SHOTS), features(40)
    assert base.departure(features(60, seed=9), held_out, [features(40, seed=8)]) < 0.75
    changed = [features(40, seed=8), altered(features, 40, ("context",))]
    assert base.departure(features(60, seed=9), held_out, changed) > 3


def test_density_needs_thirteen_normals(features):
    with pytest.raises(ConfigError, match="at least 13 train normals, there are 12"):
        density(features, n=12)
    density(features, n=13)


def test_density_without_anomalies_scores_what_is_odd(features):
    base, *_ = density(features, shots=0)
    frames, odd = features(40, seed=1), features(40, seed=2, shift=3.0)
    assert base.total(base(odd)).min() > base.total(base(frames)).max()
    assert torch.equal(base(frames)[:, 1], torch.zeros(40))
