"""CDL: T base models adapt to their distributions, g learns from how they do on the queries (Algorithm 1)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap

from ahl_train import importance
from ahl_train.config import Schedule
from ahl_train.heads.base import NORMAL, PSEUDO, SEEN, TIMES, Base, Features
from ahl_train.loss import MARGIN, prior
from ahl_train.prepared import Read, Rows, prepared

Groups = tuple[Rows, Rows, Rows]  # rows in the feature store of normal, seen and pseudo samples


@dataclass(frozen=True)
class Task:
    """One distribution, as rows of the feature store."""

    support: Groups
    query: Groups


@dataclass(frozen=True)
class EpochLog:
    """What an epoch did; floats, JSON-able."""

    epoch: int
    support_loss: float
    query_loss: float
    weights: tuple[float, ...]
    psi_loss: float | None


class CDL:
    """Learns g from tasks. All that an epoch needs is in ``state_dict`` and (seed, epoch), so that a run can resume."""

    def __init__(
        self,
        base: Base,
        tasks: Sequence[Task],
        read: Read,
        schedule: Schedule,
        seed: int,
        *,
        plus: bool = True,
    ) -> None:
        self.base, self.tasks, self.schedule, self.seed, self.plus = base, tasks, schedule, seed, plus
        self.read = prepared(base, read, np.concatenate([rows for t in tasks for rows in (*t.support, *t.query)]))
        self.epoch = 0
        self.mu, self.sigma = prior(seed)
        self.device = next(base.parameters()).device
        # Where it makes tensors of its own. The CPU's context would cost each operation on the CPU some microseconds.
        self._there: AbstractContextManager[object] = nullcontext() if self.device.type == "cpu" else self.device
        self.parameters = dict(base.named_parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters.values(), lr=schedule.outer_lr, weight_decay=schedule.weight_decay
        )
        self.decay = torch.optim.lr_scheduler.StepLR(self.optimizer, schedule.decay_every, gamma=0.1)
        self.watched = _Watched.draw(tasks, schedule.watched, np.random.default_rng([seed, 2**31])).to(self.device)
        torch.manual_seed(seed)
        self.psi = importance.Psi(len(tasks)).to(self.device)
        self.psi_optimizer = torch.optim.Adam(self.psi.parameters(), lr=2e-3)
        self.history = torch.empty(0, len(self.watched.rows), len(tasks), device=self.device)

    def run_epoch(self) -> EpochLog:
        """Adapt the base models, weigh them, step g (Algorithm 1, lines 4 to 13)."""
        self.base.train()
        rng = np.random.default_rng([self.seed, self.epoch])
        with self._there:
            adapted, support_loss = self._adapt(rng)
            weights, psi_loss = self._weigh(adapted)
            query_loss = self._learn(adapted, weights, rng)
        self.decay.step()
        self.epoch += 1
        return EpochLog(self.epoch, support_loss, query_loss, tuple(weights.tolist()), psi_loss)

    def _adapt(self, rng: np.random.Generator) -> tuple[dict[str, Tensor], float]:
        """Inner steps (Eq. 1): from g's weights, each phi_i on its support. Parameters stacked, [T, ...]."""
        t = len(self.tasks)
        stacked = {name: p.detach().expand(t, *p.shape).clone().requires_grad_() for name, p in self.parameters.items()}
        # Its step is each model's own, so one optimizer over the stack is T optimizers.
        optimizer = torch.optim.SGD(stacked.values(), lr=self.schedule.inner_lr)
        loss = torch.zeros(t)
        for batch in self._batches([task.support for task in self.tasks], self.schedule.inner_steps, rng):
            loss = self._losses(stacked, batch)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        return {name: p.detach() for name, p in stacked.items()}, loss.mean().item()

    def _learn(self, adapted: dict[str, Tensor], weights: Tensor, rng: np.random.Generator) -> float:
        """Outer steps (Eq. 4): g on the weighted query losses of the adapted phi_i.

        First order: the displacement phi_i - g of an epoch is held constant while g moves.
        """
        shift = {name: adapted[name] - p.detach() for name, p in self.parameters.items()}
        loss = torch.zeros(())
        for batch in self._batches([task.query for task in self.tasks], self.schedule.outer_steps, rng):
            moved = {name: p + shift[name] for name, p in self.parameters.items()}
            loss = (weights * self._losses(moved, batch)).sum()
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.schedule.clip)
            self.optimizer.step()
        return loss.item()

    def _weigh(self, adapted: dict[str, Tensor]) -> tuple[Tensor, float | None]:
        """w_i: uniform before epoch K; then from psi's predictions (Eqs. 6, 7)."""
        t = len(self.tasks)
        uniform = torch.full((t,), 1 / t)
        if not self.plus or t == 1:
            return uniform, None
        with torch.no_grad():
            scores = self._watch(adapted)
        self.history = torch.cat([self.history, scores[None]])[-importance.HISTORY - 1 :]
        if len(self.history) <= importance.HISTORY:
            return uniform, None
        psi_loss = importance.train_step(self.psi, self.psi_optimizer, self.history)
        with torch.no_grad():
            predicted = self.psi(self.history[1:].transpose(0, 1))
        r = importance.generalisation_error(predicted, self.watched.group, self.watched.unseen)
        return importance.weights(r), psi_loss

    def _watch(self, adapted: dict[str, Tensor]) -> Tensor:
        """Scores of the watched samples by each phi_i, in units of the margin, float [samples, T]."""
        parts = []
        for start in range(0, len(self.watched.rows), 3 * self.schedule.batch):
            features = self.read(self.watched.rows[start : start + 3 * self.schedule.batch])
            heads = vmap(self._call, in_dims=(0, None))(adapted, features)
            parts.append((self.base.total(heads) - self.mu) / self.sigma)
        return torch.cat(parts, dim=1).T / MARGIN

    def _losses(self, stacked: dict[str, Tensor], batch: "_Batch") -> Tensor:
        """The loss of each model: its heads' mean losses on the groups they learn from, added. float [T]."""
        heads = vmap(self._call)(stacked, batch.features).take_along_dim(batch.places, dim=1)  # [T, B, heads]
        mask = torch.tensor(self.base.trains_on).T[batch.group].float()  # [B, heads]
        losses = self.base.losses(heads, batch.group, self.mu, self.sigma) * mask
        return (losses.sum(1) / mask.sum(0).clamp_min(1)).sum(1)

    def _call(self, parameters: dict[str, Tensor], features: Features) -> Tensor:
        return functional_call(self.base, parameters, (features,), {"prepared": True})

    def _batches(self, sets: Sequence[Groups], steps: int, rng: np.random.Generator) -> Iterator["_Batch"]:
        for rows, group in draws(sets, steps, self.schedule.batch, rng):
            known, places, times = _distinct(rows)
            features = {name: f.unflatten(0, known.shape) for name, f in self.read(known.ravel()).items()}
            features[TIMES] = torch.from_numpy(times).to(self.device)
            yield _Batch(features, torch.from_numpy(places)[..., None].to(self.device), torch.tensor(group))

    def state_dict(self) -> dict[str, object]:
        """All that ``load_state_dict`` needs to go on after the last whole epoch."""
        return {
            "epoch": self.epoch,
            "base": self.base.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "decay": self.decay.state_dict(),
            "psi": self.psi.state_dict(),
            "psi_optimizer": self.psi_optimizer.state_dict(),
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.epoch, self.history = state["epoch"], state["history"].to(self.device)
        for name in ("base", "optimizer", "decay", "psi", "psi_optimizer"):
            getattr(self, name).load_state_dict(state[name])


@dataclass(frozen=True)
class _Batch:
    """One batch of each of T models.

    `features`: of its B' different samples, each [T, B', ...], and how often they are in it; of few seen anomalies most
    are there several times. `places`: where among them each of the batch is, int [T, B, 1]. `group`: int [B].
    """

    features: Features
    places: Tensor
    group: Tensor


@dataclass(frozen=True)
class _Watched:
    """The query samples whose scores psi watches."""

    rows: Rows
    group: Tensor  # int [samples]
    unseen: Tensor  # bool [samples, T]

    @classmethod
    def draw(cls, tasks: Sequence[Task], most: int, rng: np.random.Generator) -> "_Watched":
        """At most ``most`` query samples per group, of all tasks."""
        rows, group = [], []
        for g in (NORMAL, SEEN, PSEUDO):
            candidates = np.unique(np.concatenate([task.query[g] for task in tasks]))
            chosen = np.sort(rng.permutation(candidates)[:most])
            rows.append(chosen)
            group += [g] * len(chosen)
        all_rows = np.concatenate(rows)
        supports = [np.concatenate(task.support) for task in tasks]
        unseen = np.stack([~np.isin(all_rows, s) for s in supports], axis=1)
        return cls(all_rows, torch.tensor(group), torch.from_numpy(unseen))

    def to(self, device: torch.device) -> "_Watched":
        """Its tensors there."""
        return replace(self, group=self.group.to(device), unseen=self.unseen.to(device))


def draws(
    sets: Sequence[Groups], steps: int, batch: int, rng: np.random.Generator
) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
    """``steps`` batches: rows [T, B] and their groups [B], alike for all T; equal shares of the groups."""
    present = [g for g in (NORMAL, SEEN, PSEUDO) if all(len(s[g]) for s in sets)]
    shares = np.array_split(np.arange(batch), len(present))
    group = np.repeat(present, [len(share) for share in shares])
    for _ in range(steps):
        each = [[_draw(s[g], len(share), rng) for g, share in zip(present, shares, strict=True)] for s in sets]
        yield np.stack([np.concatenate(parts) for parts in each]), group


def _draw(rows: Rows, n: int, rng: np.random.Generator) -> Rows:
    """``n`` of the rows: without replacement where they suffice, else each about as often."""
    repeats = -(-n // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(repeats)])[:n]


def _distinct(rows: Rows) -> tuple[Rows, NDArray[np.int64], NDArray[np.float32]]:
    """Rows [T, B] to the different ones of each task [T, B'], their places in them [T, B], how often each is [T, B'].

    Where a task has fewer of them than another its last is there again, 0 times.
    """
    found = [np.unique(own, return_inverse=True, return_counts=True) for own in rows]
    shape = len(rows), max(len(own) for own, _, _ in found)
    known, times = np.empty(shape, rows.dtype), np.zeros(shape, np.float32)
    for i, (own, _, counts) in enumerate(found):
        known[i, : len(own)], known[i, len(own) :], times[i, : len(own)] = own, own[-1], counts
    return known, np.stack([places for _, places, _ in found]), times
