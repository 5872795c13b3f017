"""CDL: T base models adapt to their distributions; g learns from their losses on the queries (Algorithm 1)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap

from ahl_train.config import Schedule
from ahl_train.errors import DataError
from ahl_train.features.maps import Features
from ahl_train.heads.base import NORMAL, PSEUDO, SEEN, TIMES, Base
from ahl_train.heads.loss import MARGIN, prior
from ahl_train.method import importance
from ahl_train.method.prepared import Read, Rows, Samples
from ahl_train.method.replay import Replay
from ahl_train.rng import Stream, generator, integer

Groups = tuple[Rows, Rows, Rows]  # rows in the feature store of normal, seen and pseudo samples
_Gradients = tuple[Tensor, Sequence[Tensor | None]]  # a loss, and each parameter's gradient (None if unused)


@dataclass(frozen=True)
class Task:
    """One distribution, as rows of the feature store."""

    support: Groups
    query: Groups


@dataclass(frozen=True)
class EpochLog:
    """The log of an epoch: floats, JSON-able."""

    epoch: int
    support_loss: float
    query_loss: float
    weights: tuple[float, ...]
    psi_loss: float | None


class CDL:
    """Learns g from tasks. ``state_dict``, seed and epoch determine an epoch completely, so that a run can resume."""

    def __init__(
        self,
        base: Base,
        tasks: Sequence[Task],
        read: Read,
        schedule: Schedule,
        seed: int,
        *,
        plus: bool = True,
        fitted: tuple[Rows, Features] | None = None,
    ) -> None:
        self.base, self.tasks, self.schedule, self.seed, self.plus = base, tasks, schedule, seed, plus
        self.epoch = 0
        self.mu, self.sigma = prior(seed)
        self.device = next(base.parameters()).device
        # The device for new tensors. On the CPU, a device context would cost each operation some microseconds.
        self._there: AbstractContextManager[object] = nullcontext() if self.device.type == "cpu" else self.device
        rows = np.concatenate([rows for t in tasks for rows in (*t.support, *t.query)])
        self.samples = Samples(base, read, rows, self.device, fitted)
        self.parameters = dict(base.named_parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters.values(), lr=schedule.outer_lr, weight_decay=schedule.weight_decay
        )
        self.decay = torch.optim.lr_scheduler.StepLR(self.optimizer, schedule.decay_every, gamma=0.1)
        self.inner, self.outer = Replay(self._inner_gradients), Replay(self._outer_gradients)
        self.watched = _Watched.draw(tasks, schedule.watched, generator(seed, Stream.WATCHED_SAMPLES), self.device)
        self._watched_places = torch.from_numpy(self.samples.places(self.watched.rows)).to(self.device)
        self._trains_on = torch.tensor(base.trains_on, device=self.device).T.float()  # [groups, heads]
        torch.manual_seed(integer(seed, Stream.PSI_WEIGHTS))
        self.psi = importance.Psi(len(tasks)).to(self.device)
        self.psi_optimizer = torch.optim.Adam(self.psi.parameters(), lr=2e-3)
        self.history = torch.empty(0, len(self.watched.rows), len(tasks), device=self.device)

    def run_epoch(self) -> EpochLog:
        """Adapt the base models, weigh them, step g (Algorithm 1, lines 4 to 13). Waits for a GPU at the end."""
        self.base.train()
        rng = generator(self.seed, Stream.CDL_EPOCH, self.epoch)
        with self._there:
            adapted, support_loss = self._adapt(rng)
            weights, psi_loss = self._weigh(adapted)
            query_loss = self._learn(adapted, weights, rng)
        self.decay.step()
        self.epoch += 1
        losses = support_loss.item(), query_loss.item(), tuple(weights.tolist())
        return EpochLog(self.epoch, *losses, None if psi_loss is None else psi_loss.item())

    def _adapt(self, rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """Inner steps (Eq. 1): each phi_i learns on its support, from g's weights. Parameters [T, ...]; mean loss."""
        t = len(self.tasks)
        stacked = {name: p.detach().expand(t, *p.shape).clone() for name, p in self.parameters.items()}
        loss = torch.zeros(t)
        for batch in self._batches([task.support for task in self.tasks], self.schedule.inner_steps, rng):
            loss, gradients = self.inner(stacked, batch)
            # Each model has its own step, so one step over the stack is T steps.
            for p, gradient in zip(stacked.values(), gradients, strict=True):
                if gradient is not None:
                    p.add_(gradient, alpha=-self.schedule.inner_lr)
        return stacked, loss.mean()

    def _inner_gradients(self, stacked: dict[str, Tensor], batch: "_Batch") -> _Gradients:
        """The loss of each model, [T], and the gradients of their parameters."""
        own = {name: p.detach().requires_grad_() for name, p in stacked.items()}
        losses = self._losses(own, batch)
        return losses.detach(), torch.autograd.grad(losses.sum(), list(own.values()), allow_unused=True)

    def _learn(self, adapted: dict[str, Tensor], weights: Tensor, rng: np.random.Generator) -> Tensor:
        """Outer steps (Eq. 4): g learns from the weighted query losses of the adapted phi_i. Returns the last loss.

        First order: the displacement phi_i - g of an epoch stays constant while g moves.
        """
        shift = {name: adapted[name] - p.detach() for name, p in self.parameters.items()}
        loss = torch.zeros(())
        for batch in self._batches([task.query for task in self.tasks], self.schedule.outer_steps, rng):
            given = {name: p.detach() for name, p in self.parameters.items()}
            loss, gradients = self.outer(given, shift, weights, batch)
            for p, gradient in zip(self.parameters.values(), gradients, strict=True):
                p.grad = gradient
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.schedule.clip)
            self.optimizer.step()
        return loss

    def _outer_gradients(
        self, parameters: dict[str, Tensor], shift: dict[str, Tensor], weights: Tensor, batch: "_Batch"
    ) -> _Gradients:
        """The weighted query loss, and the gradients of g's parameters."""
        own = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        moved = {name: p + shift[name] for name, p in own.items()}
        loss = (weights * self._losses(moved, batch)).sum()
        return loss.detach(), torch.autograd.grad(loss, list(own.values()), allow_unused=True)

    def _weigh(self, adapted: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """w_i: uniform in the first K epochs; then from psi's predictions (Eqs. 6, 7)."""
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
        for places in self._watched_places.split(3 * self.schedule.batch):
            heads = vmap(self._call, in_dims=(0, None))(adapted, self.samples.at(places))
            parts.append((self.base.total(heads) - self.mu) / self.sigma)
        return torch.cat(parts, dim=1).T / MARGIN

    def _losses(self, stacked: dict[str, Tensor], batch: "_Batch") -> Tensor:
        """The loss of each model: its heads' mean losses on the groups they learn from, added. float [T]."""
        heads = vmap(self._call)(stacked, batch.features).take_along_dim(batch.places, dim=1)  # [T, B, heads]
        mask = self._trains_on[batch.group]  # [B, heads]
        losses = self.base.losses(heads, batch.group, self.mu, self.sigma) * mask
        return (losses.sum(1) / mask.sum(0).clamp_min(1)).sum(1)

    def _call(self, parameters: dict[str, Tensor], features: Features) -> Tensor:
        heads: Tensor = functional_call(self.base, parameters, (features,), {"prepared": True})
        return heads

    def _batches(self, sets: Sequence[Groups], steps: int, rng: np.random.Generator) -> Iterator["_Batch"]:
        """The batches of all steps. They are drawn first and sent to the device all at once."""
        if not steps:
            return
        rows, groups = zip(*draws(sets, steps, self.schedule.batch, rng), strict=True)
        known, places, times = _distinct(np.stack(rows), _most(sets, self.schedule.batch))
        group = self._sent(groups[0])
        for step in zip(self._sent(self.samples.places(known)), self._sent(places), self._sent(times), strict=True):
            features = {**self.samples.at(step[0]), TIMES: step[2]}
            yield _Batch(features, step[1].unsqueeze(-1), group)

    def _sent(self, array: NDArray[np.generic]) -> Tensor:
        """The array on the device, without waiting for the device's earlier work."""
        tensor = torch.from_numpy(array)
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Everything that ``load_state_dict`` needs to continue after the last complete epoch."""
        return {
            "epoch": self.epoch,
            "base": self.base.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "decay": self.decay.state_dict(),
            "psi": self.psi.state_dict(),
            "psi_optimizer": self.psi_optimizer.state_dict(),
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.history = state["epoch"], state["history"].to(self.device)
        for name in ("base", "optimizer", "decay", "psi", "psi_optimizer"):
            getattr(self, name).load_state_dict(state[name])


class _Batch(NamedTuple):
    """One batch for each of T models.

    `features`: of its B' different samples, each [T, B', ...], with how often each sample counts; few seen anomalies
    repeat often. `places`: the index of each batch member among these, int [T, B, 1]. `group`: int [B].
    """

    features: Features
    places: Tensor
    group: Tensor


@dataclass(frozen=True)
class _Watched:
    """The query samples that psi watches."""

    rows: Rows
    group: Tensor  # int [samples]
    unseen: Tensor  # bool [samples, T]

    @classmethod
    def draw(cls, tasks: Sequence[Task], most: int, rng: np.random.Generator, device: torch.device) -> "_Watched":
        """At most ``most`` query samples per group, of all tasks; tensors on the device."""
        rows, group = [], []
        for g in (NORMAL, SEEN, PSEUDO):
            candidates = np.unique(np.concatenate([task.query[g] for task in tasks]))
            chosen = np.sort(rng.permutation(candidates)[:most])
            rows.append(chosen)
            group += [g] * len(chosen)
        all_rows = np.concatenate(rows)
        supports = [np.concatenate(task.support) for task in tasks]
        unseen = np.stack([~np.isin(all_rows, s) for s in supports], axis=1)
        return cls(all_rows, torch.tensor(group, device=device), torch.from_numpy(unseen).to(device))


def draws(
    sets: Sequence[Groups], steps: int, batch: int, rng: np.random.Generator
) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
    """``steps`` batches: rows [T, B] and their groups [B], the same for all T; equal shares of the groups."""
    shares = _shares(sets, batch)
    group = np.repeat(list(shares), list(shares.values()))
    for _ in range(steps):
        each = [[_draw(s[g], share, rng) for g, share in shares.items()] for s in sets]
        yield np.stack([np.concatenate(parts) for parts in each]), group


def _shares(sets: Sequence[Groups], batch: int) -> dict[int, int]:
    """How many samples of a batch come from each group that all sets have."""
    present = [g for g in (NORMAL, SEEN, PSEUDO) if all(len(s[g]) for s in sets)]
    if not present:
        raise DataError("the distributions have no group of samples in common: add normal images")
    return {g: len(share) for g, share in zip(present, np.array_split(np.arange(batch), len(present)), strict=True)}


def _draw(rows: Rows, n: int, rng: np.random.Generator) -> Rows:
    """``n`` of the rows: without replacement if there are enough, else each about equally often."""
    repeats = -(-n // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(repeats)])[:n]


def _most(sets: Sequence[Groups], batch: int) -> int:
    """The largest number of different samples in a batch of a set."""
    shares = _shares(sets, batch)
    return max(sum(min(share, len(np.unique(s[g]))) for g, share in shares.items()) for s in sets)


def _distinct(rows: Rows, most: int) -> tuple[Rows, NDArray[np.int64], NDArray[np.float32]]:
    """Rows [..., B] to each batch's different rows [..., B'], their places among those [..., B], and counts [..., B'].

    B' is ``most``, so that all steps have one shape: a shorter batch repeats its last row, with a count of 0.
    """
    flat = rows.reshape(-1, rows.shape[-1])
    shape = (*rows.shape[:-1], most)
    known, times = np.empty((len(flat), most), rows.dtype), np.zeros((len(flat), most), np.float32)
    places = np.empty_like(flat)
    for i, own in enumerate(flat):
        different, places[i], counts = np.unique(own, return_inverse=True, return_counts=True)
        known[i], known[i, : len(different)], times[i, : len(different)] = different[-1], different, counts
    return known.reshape(shape), places.reshape(rows.shape), times.reshape(shape)
