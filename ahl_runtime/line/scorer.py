"""The scoring thread: frames that wait become scores, several at a time; one that fails is tried alone, then told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Full, Queue

import numpy as np

from ahl_runtime.line.inbox import Inbox, Ticket
from ahl_runtime.line.model import Model
from ahl_runtime.types import Decision, Frame, Outputs, Score

log = logging.getLogger(__name__)
_FAILURES = 3  # in a row, until the engine is loaded anew


@dataclass(frozen=True, eq=False)
class Scored:
    """A ticket and its decision, or why there is none. `wait`, `score`: seconds."""

    ticket: Ticket
    decision: Decision | None
    error: str
    engine: str
    wait: float
    score: float


class Scorer:
    """Takes from `inbox`, gives to `out` (which must be bounded). `model` may be put in its place at any time.

    `batch`: frames scored together, at most; None for the model's.
    `seen`: called with each batch that was scored: frames, decisions, in the scoring thread.
    `reload`: called after several failures in a row; gives a fresh model, or raises.
    """

    def __init__(
        self,
        inbox: Inbox,
        out: Queue[list[Scored]],
        model: Model,
        batch: int | None,
        linger: float,
        seen: Callable[[Model, list[Frame], list[Decision] | None], None],
        reload: Callable[[], Model],
    ) -> None:
        self.model = model
        self.alive = time.monotonic()
        self.trouble = ""
        self._inbox, self._out = inbox, out
        self._batch, self._linger = batch, linger
        self._seen, self._reload = seen, reload
        self._failures = 0
        self._reloaded = float("-inf")

    def run(self, aborted: Callable[[], bool]) -> None:
        """Until the inbox is closed and empty, or `aborted`."""
        while not (self._inbox.drained or aborted()):
            self.alive = time.monotonic()
            tickets = self._inbox.take(self._batch or self.model.batch, self._linger, 0.25)
            if not tickets:
                continue
            taken = time.monotonic()
            results = self._results(tickets, taken)
            while not aborted():
                self.alive = time.monotonic()
                try:
                    self._out.put(results, timeout=0.25)
                    break
                except Full:
                    continue
            else:
                for result in results:
                    result.ticket.outcome.cancel()

    def _results(self, tickets: Sequence[Ticket], taken: float) -> list[Scored]:
        if tickets[0].frame is None:  # they are of one shape: of none
            return [Scored(t, None, t.error, "", taken - t.accepted, 0.0) for t in tickets]
        frames = [t.frame for t in tickets if t.frame is not None]
        model = self.model
        try:
            decisions = self._decide(model, frames)
        except Exception as error:  # whatever an engine's library raises, the line goes on
            if len(tickets) > 1:
                return [r for t in tickets for r in self._results([t], taken)]
            self._failed(model, error)
            reason = f"{type(error).__name__}: {error}"
            return [Scored(tickets[0], None, reason, model.engine, taken - tickets[0].accepted, 0.0)]
        self._failures, self.trouble = 0, ""
        self._seen(model, frames, decisions)
        spent = (time.monotonic() - taken) / len(tickets)
        return [
            Scored(t, d, "", model.engine, taken - t.accepted, spent) for t, d in zip(tickets, decisions, strict=True)
        ]

    @staticmethod
    def _decide(model: Model, frames: list[Frame]) -> list[Decision]:
        outputs = model.infer(np.stack([f.image for f in frames]))
        return [model.rule(f.source).decide(score(outputs, i), f) for i, f in enumerate(frames)]

    def _failed(self, model: Model, error: Exception) -> None:
        self.trouble = f"the engine fails: {error}"
        log.error("the engine failed on a frame", extra={"engine": model.engine, "error": str(error)})
        self._seen(model, [], None)
        self._failures += 1
        if self._failures >= _FAILURES and time.monotonic() - self._reloaded > 10.0:
            self._reloaded = time.monotonic()
            try:
                fresh = self._reload()
            except Exception as failure:
                log.error("the bundle cannot be loaded anew", extra={"error": str(failure)})
                return
            if self.model is model:
                self.model = fresh
                log.warning("the engine was loaded anew", extra={"engine": fresh.engine})


def score(outputs: Outputs, i: int) -> Score:
    """Of frame i, in memory of its own, so that it does not hold the batch's."""
    return Score(float(outputs.score[i]), outputs.anomaly_map[i].copy(), outputs.head_scores[i].copy())
