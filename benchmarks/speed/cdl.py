"""Run CDL in the plain way, one model after the other. The bench compares the batched CDL with it."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ahl_train.features.maps import Features
from ahl_train.heads.base import NORMAL, PSEUDO, SEEN, Base
from ahl_train.heads.dra.head import DRA
from ahl_train.method.cdl import CDL, Task, draws
from ahl_train.method.prepared import Rows
from ahl_train.rng import Stream, generator

SHOTS = 10


class Memory:
    """Random features in memory, in the form that `CDL` reads. The counts of normals, seen and pseudo anomalies."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], normals: int, seen: int, pseudo: int) -> None:
        generator = torch.Generator().manual_seed(0)
        count = normals + seen + pseudo
        self.all = {name: torch.rand(count, *shape, generator=generator) for name, shape in shapes.items()}
        ends = np.cumsum([0, normals, seen, pseudo])
        self.groups = tuple(np.arange(*ends[g : g + 2]) for g in (NORMAL, SEEN, PSEUDO))

    def __call__(self, rows: Rows) -> Features:
        return {name: values[rows] for name, values in self.all.items()}

    def tasks(self, count: int) -> list[Task]:
        """`count` distributions. Each has half of every group in its support and half in its query."""
        rng = np.random.default_rng(0)
        return [self._task(rng) for _ in range(count)]

    def _task(self, rng: np.random.Generator) -> Task:
        normal, seen, pseudo = (np.array_split(rng.permutation(group), 2) for group in self.groups)
        return Task((normal[0], seen[0], pseudo[0]), (normal[1], seen[1], pseudo[1]))


class Sequential:
    """Algorithm 1 as published: copy each base model, take its steps, compute its loss. Then take g's steps by model.

    Each model is computed completely from the features of each batch, and DRA uses the convolution of torch.
    """

    def __init__(self, base: Base, cdl: CDL, memory: Memory) -> None:
        if isinstance(base, DRA):
            base.winograd = False
        self.g, self.schedule, self.memory, self.tasks = base.train(), cdl.schedule, memory, cdl.tasks
        self.mu, self.sigma, self.seed, self.epoch = cdl.mu, cdl.sigma, cdl.seed, 0
        self.optimizer = torch.optim.Adam(
            self.g.parameters(), lr=self.schedule.outer_lr, weight_decay=self.schedule.weight_decay
        )
        self.decay = torch.optim.lr_scheduler.StepLR(self.optimizer, self.schedule.decay_every, gamma=0.1)

    def run_epoch(self) -> None:
        """Run the next epoch, on the batches that CDL draws for this epoch."""
        rng, schedule = generator(self.seed, Stream.CDL_EPOCH, self.epoch), self.schedule
        inner = list(draws([task.support for task in self.tasks], schedule.inner_steps, schedule.batch, rng))
        shifts = [self._shift([(rows[i], group) for rows, group in inner]) for i in range(len(self.tasks))]
        for batch, group in draws([task.query for task in self.tasks], schedule.outer_steps, schedule.batch, rng):
            self.optimizer.zero_grad()
            for rows, shift in zip(batch, shifts, strict=True):
                model = copy.deepcopy(self.g)
                with torch.no_grad():
                    for p, s in zip(model.parameters(), shift, strict=True):
                        p.add_(s)
                model.zero_grad()
                (self._loss(model, rows, group) / len(self.tasks)).backward()
                for p, q in zip(self.g.parameters(), model.parameters(), strict=True):
                    if q.grad is not None:
                        p.grad = q.grad if p.grad is None else p.grad + q.grad
            nn.utils.clip_grad_norm_(self.g.parameters(), self.schedule.clip)
            self.optimizer.step()
        self.decay.step()
        self.epoch += 1

    def _shift(self, batches: Sequence[tuple[Rows, NDArray[np.int64]]]) -> list[Tensor]:
        model = copy.deepcopy(self.g)
        optimizer = torch.optim.SGD(model.parameters(), lr=self.schedule.inner_lr)
        for rows, group in batches:
            optimizer.zero_grad()
            self._loss(model, rows, group).backward()
            optimizer.step()
        return [a.detach() - b.detach() for a, b in zip(model.parameters(), self.g.parameters(), strict=True)]

    def _loss(self, model: Base, rows: Rows, group: NDArray[np.int64]) -> Tensor:
        mask = torch.tensor(model.trains_on).T[group].float()
        losses = model.losses(model(self.memory(rows))[None], torch.from_numpy(group), self.mu, self.sigma)[0] * mask
        return (losses.sum(0) / mask.sum(0).clamp_min(1)).sum()


@torch.no_grad()
def largest_difference(a: Base, b: Base, memory: Memory) -> float:
    """The largest difference between the scores of two bases for all samples in memory, relative for scores above 1."""
    found = [base.eval().total(base(memory.all)) for base in (a, b)]
    return float(((found[0] - found[1]).abs() / found[0].abs().clamp_min(1)).max())
