"""CDL: the batched steps against one model at a time, g's gradient, the weights, and resuming."""

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ahl_train.config import Schedule
from ahl_train.errors import DataError
from ahl_train.heads.base import TIMES, Copies
from ahl_train.heads.density import Density
from ahl_train.heads.devnet import DevNet
from ahl_train.heads.dra.head import DRA
from ahl_train.method.cdl import CDL, Task
from ahl_train.method.importance import HISTORY

C, B, D = 3, 1, 2  # the channels of conftest's features
NORMAL, SEEN, PSEUDO = range(20), range(20, 30), range(30, 50)  # rows of the store
SCHEDULE = Schedule(epochs=8, inner_steps=3, outer_steps=2, batch=6, watched=4, pseudo=None, decay_every=2)


@pytest.fixture(params=[DevNet, DRA, Density], ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def tasks():
    """Three distributions; the seen anomalies are halved, normals and pseudo anomalies overlap between them."""
    rng = np.random.default_rng(0)

    def halves(rows, most):
        mixed = rng.permutation(rows)[:most]
        return mixed[: most // 2], mixed[most // 2 :]

    dealt = [tuple(zip(halves(NORMAL, 16), halves(SEEN, 10), halves(PSEUDO, 12), strict=True)) for _ in range(3)]
    return [Task(support, query) for support, query in dealt]


@pytest.fixture
def setting(kind, features):
    return make_base(kind, features), Store(features, kind.inputs)


@pytest.fixture
def exact(setting):
    """In double precision, so that only the order of the sums can differ."""
    base, store = setting
    store.all = {name: f.double() for name, f in store.all.items()}
    return base.double(), store


def shapes(features):
    return {name: f.shape[1:] for name, f in features(1).items()}


def make_base(kind, features, seed=0):
    torch.manual_seed(seed)
    base = {
        DevNet: lambda: DevNet(C),
        DRA: lambda: DRA(C, hidden=4),
        Density: lambda: Density(shapes(features), len(SEEN)),
    }[kind]()
    base.fit(features(20), features(10, seed=1, shift=0.8), Copies(features(8, shift=2.0)))
    for p in base.parameters():
        nn.init.normal_(p, std=0.3)
    return base


class Store:
    """50 frames, normals, seen and pseudo anomalies that differ. `batches`: of a ``learner``, rows [T, B] each."""

    def __init__(self, features, inputs):
        groups = [features(20), features(10, seed=1, shift=0.8), features(20, seed=2, shift=-0.5)]
        self.all = {name: torch.cat([g[name] for g in groups]) for name in inputs}
        self.batches = []

    def __call__(self, rows):
        return {name: f[rows] for name, f in self.all.items()}


def learner(base, tasks, store, schedule, **switches):
    """A CDL that keeps in ``store.batches`` which rows it learns from."""
    cdl = CDL(base, tasks, store, schedule, seed=0, **switches)
    at, batches, asked = cdl.samples.at, cdl._batches, []
    everything = np.unique(np.concatenate([rows for t in tasks for rows in (*t.support, *t.query)]))

    def reading(places):
        asked.append(everything[places.numpy()])
        return at(places)

    def batching(*which):
        for batch in batches(*which):
            places = batch.places[..., 0].numpy()
            known = asked[-1].reshape(len(tasks), -1)
            store.batches.append(np.take_along_axis(known, places, axis=1))
            yield batch

    cdl.samples.at, cdl._batches = reading, batching
    return cdl


# A second implementation, one model and one head at a time.


def one_loss(model, store, rows, mu, sigma):
    """Heads' mean deviation losses on the samples that each learns from, added."""
    heads = model({name: f[rows] for name, f in store.all.items()})
    share = 1
    if isinstance(model, Density):  # it learns by the deviation of the total, half of it for each head
        heads, share = model.total(heads)[:, None].expand_as(heads), 2
    total = 0.0
    for h, allowed in enumerate(model.trains_on):
        losses = []
        for b, row in enumerate(rows):
            group = 0 if row in NORMAL else 1 if row in SEEN else 2
            if allowed[group]:
                dev = (heads[b, h] - mu) / sigma
                high = (group != 0) != model.negated[h]
                losses.append(torch.relu(5 - dev) if high else dev.abs())
        if losses:
            total = total + sum(losses) / len(losses) / share
    return total


def one_epoch(g, optimizer, store, batches, schedule, weights, mu, sigma):
    """Algorithm 1, sequentially; batches [steps][T][B] of rows. Returns the adapted models."""
    adapted = []
    for i in range(len(weights)):
        model = copy.deepcopy(g)
        inner = torch.optim.SGD(model.parameters(), lr=schedule.inner_lr)
        for step in range(schedule.inner_steps):
            inner.zero_grad()
            one_loss(model, store, batches[step][i], mu, sigma).backward()
            inner.step()
        adapted.append(model)
    shifts = [[a.detach() - b.detach() for a, b in zip(m.parameters(), g.parameters(), strict=True)] for m in adapted]
    for step in range(schedule.outer_steps):
        optimizer.zero_grad()
        for i, shift in enumerate(shifts):
            model = copy.deepcopy(g)
            with torch.no_grad():
                for p, s in zip(model.parameters(), shift, strict=True):
                    p += s
            model.zero_grad()
            (weights[i] * one_loss(model, store, batches[schedule.inner_steps + step][i], mu, sigma)).backward()
            for p, q in zip(g.parameters(), model.parameters(), strict=True):
                p.grad = q.grad if p.grad is None else p.grad + q.grad
        nn.utils.clip_grad_norm_(g.parameters(), schedule.clip)
        optimizer.step()
    return adapted


def compare(ours, reference):
    for (name, p), q in zip(ours.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_batched_epochs_equal_one_model_at_a_time(exact, tasks):
    """Three epochs of inner and outer steps, with a step of the decay in between."""
    base, store = exact
    g = copy.deepcopy(base).train()
    cdl = learner(base, tasks, store, SCHEDULE, plus=False)
    optimizer = torch.optim.Adam(g.parameters(), lr=2e-3, weight_decay=1e-4)
    for epoch in range(3):
        for settings in optimizer.param_groups:
            settings["lr"] = 2e-3 * 0.1 ** (epoch // 2)
        store.batches.clear()
        cdl.run_epoch()
        assert len(store.batches) == SCHEDULE.inner_steps + SCHEDULE.outer_steps
        one_epoch(g, optimizer, store, store.batches, SCHEDULE, [1 / 3] * 3, cdl.mu, cdl.sigma)
        compare(base, g)


def test_inner_steps_equal_one_adam_per_model(exact, tasks):
    base, store = exact
    g = copy.deepcopy(base).train()
    cdl = learner(base.train(), tasks, store, SCHEDULE)
    stacked, _ = cdl._adapt(np.random.default_rng(0))
    inner_only = replace(SCHEDULE, outer_steps=0)
    models = one_epoch(
        g, torch.optim.SGD(g.parameters(), lr=0.0), store, store.batches, inner_only, [0] * 3, cdl.mu, cdl.sigma
    )
    for i, model in enumerate(models):
        for name, p in model.named_parameters():
            torch.testing.assert_close(stacked[name][i], p.detach(), atol=1e-5, rtol=0)
            assert not torch.equal(stacked[name][i], dict(g.named_parameters())[name])
    compare(base, g)  # g itself has not moved


def test_weighted_epochs_equal_one_model_at_a_time(features, tasks):
    """Past epoch 5, with psi's weights."""
    base, store = make_base(DevNet, features), Store(features, DevNet.inputs)
    g = copy.deepcopy(base).train()
    schedule = replace(SCHEDULE, decay_every=100)
    cdl = learner(base, tasks, store, schedule)
    optimizer = torch.optim.Adam(g.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(7):
        store.batches.clear()
        log = cdl.run_epoch()
        one_epoch(g, optimizer, store, store.batches, schedule, log.weights, cdl.mu, cdl.sigma)
    assert max(log.weights) - min(log.weights) > 1e-3
    compare(base, g)


def test_gs_gradient_is_the_finite_difference_with_the_displacements_held(exact, tasks):
    base, store = exact
    cdl = learner(base.train(), tasks, store, replace(SCHEDULE, outer_steps=1, clip=1e9))
    g = copy.deepcopy(base)
    rng = np.random.default_rng(0)
    adapted, _ = cdl._adapt(rng)
    shifts = {name: adapted[name] - p.detach() for name, p in g.named_parameters()}
    weights = torch.tensor([0.5, 0.3, 0.2])
    store.batches.clear()
    cdl._learn(adapted, weights, rng)
    (rows,) = store.batches

    @torch.no_grad()
    def loss_at(name, direction, distance):
        total = 0.0
        for i, w in enumerate(weights):
            model = copy.deepcopy(g)
            for n, p in model.named_parameters():
                p += shifts[n][i] + (distance * direction if n == name else 0)
            total += w * one_loss(model, store, rows[i], cdl.mu, cdl.sigma)
        return total.item()

    for name, p in base.named_parameters():
        direction = torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        numeric = (loss_at(name, direction, 1e-6) - loss_at(name, direction, -1e-6)) / 2e-6
        assert (p.grad * direction).sum().item() == pytest.approx(numeric, rel=1e-4, abs=1e-6), name


# Weights


def run(tasks, store, base, epochs=8, **switches):
    cdl = learner(base, tasks, store, SCHEDULE, **switches)
    return cdl, [cdl.run_epoch() for _ in range(epochs)]


def test_weights_are_uniform_before_epoch_5_and_sum_to_one(setting, tasks):
    base, store = setting
    _, logs = run(tasks, store, base)
    for log in logs[:HISTORY]:
        assert log.weights == pytest.approx([1 / 3] * 3)
        assert log.psi_loss is None
    for log in logs[HISTORY:]:
        assert sum(log.weights) == pytest.approx(1)
        assert len(set(log.weights)) == 3
        assert log.psi_loss > 0
    assert [log.epoch for log in logs] == list(range(1, 9))


def test_weights_follow_from_psis_predictions(features, tasks):
    """r and w worked out per sample, with which samples a model has not trained on read off the tasks."""
    cdl, logs = run(tasks, Store(features, DevNet.inputs), make_base(DevNet, features), epochs=6)
    with torch.no_grad():
        predicted = cdl.psi(cdl.history[1:].transpose(0, 1))
    r = []
    for i, task in enumerate(tasks):
        total = 0.0
        for group, factor in ((NORMAL, 0.5), (SEEN, 1.0), (PSEUDO, 0.5)):
            errors = [
                (predicted[s, i].clamp(0, 1).item() - (group is not NORMAL)) ** 2
                for s, row in enumerate(cdl.watched.rows)
                if row in group and row not in np.concatenate(task.support)
            ]
            total += factor * sum(errors) / max(1, len(errors))
        r.append(total)
    expected = np.exp(-np.array(r))
    np.testing.assert_allclose(logs[-1].weights, expected / expected.sum(), rtol=1e-4)


def test_without_plus_and_with_one_model_weights_stay_uniform(features, tasks):
    base, store = make_base(DevNet, features), Store(features, DevNet.inputs)
    _, logs = run(tasks, store, base, plus=False)
    assert all(log.weights == pytest.approx([1 / 3] * 3) and log.psi_loss is None for log in logs)
    _, logs = run(tasks[:1], store, base)
    assert all(log.weights == (1.0,) for log in logs)


def test_the_watched_are_query_samples_alike_in_number(features, tasks):
    cdl, _ = run(tasks, Store(features, DevNet.inputs), make_base(DevNet, features), epochs=1)
    for g, rows in enumerate((NORMAL, SEEN, PSEUDO)):
        watched = cdl.watched.rows[cdl.watched.group.numpy() == g]
        assert len(set(watched)) == SCHEDULE.watched
        assert set(watched) <= set(rows) & set(np.concatenate([t.query[g] for t in tasks]))
    assert cdl.history.shape == (1, 3 * SCHEDULE.watched, 3)


# Batches


def test_a_batch_has_a_third_of_each_group_from_the_own_support(features, tasks):
    store = Store(features, DevNet.inputs)
    cdl = learner(make_base(DevNet, features), tasks, store, replace(SCHEDULE, batch=12), plus=False)
    cdl._adapt(np.random.default_rng(0))
    for rows in store.batches:
        for task, batch in zip(tasks, rows, strict=True):
            for g in range(3):
                share = batch[4 * g : 4 * g + 4]
                assert set(share) <= set(task.support[g])
                assert len(set(share)) == 4


def test_few_samples_are_repeated_about_as_often(features, tasks):
    store = Store(features, DevNet.inputs)
    one_shot = [
        Task((t.support[0], np.array([20, 21]), t.support[2]), (t.query[0], np.array([20, 21]), t.query[2]))
        for t in tasks
    ]
    cdl = learner(make_base(DevNet, features), one_shot, store, replace(SCHEDULE, batch=15), plus=False)
    cdl._adapt(np.random.default_rng(0))
    for rows in store.batches:
        for batch in rows:
            assert sorted(np.bincount(batch[5:10])[20:]) == [2, 3]


def test_each_sample_of_a_batch_is_computed_once(features, tasks):
    """Of 5 seen anomalies, and of 6 samples where another task has 8."""
    store = Store(features, DevNet.inputs)
    fewer = Task((tasks[0].support[0][:6], *tasks[0].support[1:]), tasks[0].query)
    cdl = learner(make_base(DevNet, features), [fewer, *tasks[1:]], store, replace(SCHEDULE, batch=24), plus=False)
    for batch in cdl._batches([t.support for t in cdl.tasks], 2, np.random.default_rng(0)):
        assert batch.features["fine"].shape[:2] == (3, 8 + 5 + 6)
        rows = store.batches[-1]
        for own, places, times in zip(rows, batch.places[..., 0], batch.features[TIMES], strict=True):
            assert len(own) == 24 and set(np.bincount(own[8:16])[20:]) <= {0, 1, 2}
            assert torch.equal(torch.bincount(places, minlength=19).float(), times)
    assert len(set(store.batches[0][0][:8])) == 6


@pytest.mark.parametrize("kind", [DevNet, DRA])
def test_a_group_without_samples_leaves_its_share_to_the_others(kind, features, tasks):
    """No seen anomalies: it still learns, and nothing becomes NaN."""
    none = np.array([], np.int64)
    zero_shot = [Task((t.support[0], none, t.support[2]), (t.query[0], none, t.query[2])) for t in tasks]
    base, store = make_base(kind, features), Store(features, kind.inputs)
    _, logs = run(zero_shot, store, base)
    assert all(torch.isfinite(p).all() for p in base.parameters())
    assert sum(logs[-1].weights) == pytest.approx(1)
    batches = np.concatenate(store.batches)
    assert len(batches) == 8 * 5 * 3
    for batch in batches:
        assert (np.isin(batch, NORMAL).sum(), np.isin(batch, PSEUDO).sum()) == (3, 3)


def test_tasks_without_samples_are_refused(features):
    none = np.array([], np.int64)
    empty = [Task((none, none, none), (none, np.array([20]), none))] * 2
    cdl = CDL(make_base(DevNet, features), empty, Store(features, DevNet.inputs), SCHEDULE, seed=0)
    with pytest.raises(DataError, match="no group of samples in common: add normal images"):
        cdl.run_epoch()


def test_learning_lowers_the_query_loss(setting, tasks):
    base, store = setting
    schedule = replace(SCHEDULE, epochs=30, outer_lr=0.02, decay_every=100)
    cdl = CDL(base, tasks, store, schedule, seed=0, plus=False)
    losses = [cdl.run_epoch().query_loss for _ in range(schedule.epochs)]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])


# Resuming


@pytest.mark.parametrize("interrupted", [2, 6])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(kind, features, tasks, interrupted):
    """Interrupted before psi has begun, and after; the state goes through a file."""
    whole, logs = run(tasks, Store(features, kind.inputs), make_base(kind, features))
    first, _ = run(tasks, Store(features, kind.inputs), make_base(kind, features), epochs=interrupted)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    torch.manual_seed(123)  # another process, another history of the global generator
    resumed = CDL(make_base(kind, features, seed=9), tasks, Store(features, kind.inputs), SCHEDULE, seed=0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert [resumed.run_epoch() for _ in range(8 - interrupted)] == logs[interrupted:]
    for ours, theirs in ((resumed.base, whole.base), (resumed.psi, whole.psi)):
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_the_seed_decides(features, tasks):
    def parameters(seed):
        base = make_base(DevNet, features)
        CDL(base, tasks, Store(features, DevNet.inputs), SCHEDULE, seed=seed).run_epoch()
        return torch.cat([p.detach().flatten() for p in base.parameters()])

    assert torch.equal(parameters(1), parameters(1))
    assert not torch.equal(parameters(1), parameters(2))
