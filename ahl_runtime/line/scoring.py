"""The scoring threads: they score pending frames in parallel and pass the results on in the order of arrival.

A free thread takes the next frame or batch at once; it does not wait for the other threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Full, Queue

from ahl_runtime.core.types import Decision, Frame, stacked
from ahl_runtime.line.active.loaded import ActiveModel, LoadedBundle
from ahl_runtime.line.active.owner import ModelOwner
from ahl_runtime.line.queues import FrameQueues, PendingFrame

log = logging.getLogger(__name__)
_FAILURES = 3  # failures in a row before the engine is reloaded
_LOOK = 0.25  # seconds


@dataclass(frozen=True, eq=False)
class ScoredFrame:
    """A pending frame and its decision, or None and an `error`. `model`: the model used; None if there are no pixels.

    `wait`, `score`: seconds in the queue and in the engine.
    """

    pending: PendingFrame
    decision: Decision | None
    error: str
    model: ActiveModel | None
    wait: float
    score: float

    @property
    def engine(self) -> str:
        """The name of the engine that scored the frame, or ''."""
        return self.model.bundle.engine if self.model else ""


class ScoringStage:
    """Takes frames from `queues`, decides with the active model of `owner`, puts results in `out` (a bounded queue).

    `threads`: the number of threads that call `run`, with 0, 1, ...; `LoadedBundle.parallel` of them score.
    `batch`: the most frames in one call; None: the bundle's default. `trouble`: why the engine fails now, or ''.
    """

    def __init__(
        self,
        queues: FrameQueues,
        out: Queue[list[ScoredFrame]],
        owner: ModelOwner,
        threads: int,
        batch: int | None,
        linger: float,
    ) -> None:
        self.threads = threads
        self.trouble = ""
        self._queues, self._out, self._owner = queues, out, owner
        self._batch, self._linger = batch, linger
        self._failures = 0
        self._reloaded = float("-inf")
        self._signs = [time.monotonic()] * threads
        self._taking = threading.Lock()
        self._taken = 0  # batches
        self._order = threading.Condition()
        self._done: dict[int, list[ScoredFrame]] = {}  # results that wait for an earlier batch
        self._handed_on = 0

    @property
    def alive(self) -> float:
        """Monotonic seconds: the oldest of the threads' last signs of life."""
        return min(self._signs)

    def run(self, thread: int, aborted: Callable[[], bool]) -> None:
        """Score until the queues are closed and empty, or until `aborted`."""
        while not (self._queues.drained or aborted()):
            self._signs[thread] = time.monotonic()
            if thread >= self._owner.current().bundle.parallel:
                time.sleep(_LOOK)
                continue
            if not self._taking.acquire(timeout=_LOOK):
                continue
            try:
                waiting = self._queues.take(self._batch or self._owner.current().bundle.batch, self._linger, _LOOK)
                number = self._taken
                self._taken += bool(waiting)
            finally:
                self._taking.release()
            if waiting:
                results = self._results(self._owner.current(), waiting, time.monotonic())
                self._hand_on(thread, number, results, aborted)
        self._settle(thread, aborted)

    def _results(self, model: ActiveModel, waiting: Sequence[PendingFrame], taken: float) -> list[ScoredFrame]:
        if waiting[0].frame is None:  # a batch has one shape, here: no pixels
            return [ScoredFrame(p, None, p.error, None, taken - p.accepted, 0.0) for p in waiting]
        try:
            decisions = self._decide(model, [p.frame for p in waiting if p.frame is not None])
        except Exception as error:  # an engine's library may raise anything; the line continues
            if len(waiting) > 1:
                return [r for p in waiting for r in self._results(model, [p], taken)]
            reason = f"{type(error).__name__}: {error}"
            return [ScoredFrame(waiting[0], None, reason, model, taken - waiting[0].accepted, 0.0)]
        spent = (time.monotonic() - taken) / len(waiting)
        return [
            ScoredFrame(p, d, "", model, taken - p.accepted, spent) for p, d in zip(waiting, decisions, strict=True)
        ]

    def _decide(self, model: ActiveModel, frames: list[Frame]) -> list[Decision]:
        outputs = model.bundle.infer(stacked(frames), more=self._queues.waiting)
        return [model.rules[f.source].decide(outputs.of(i), f) for i, f in enumerate(frames)]

    def _hand_on(self, thread: int, number: int, results: list[ScoredFrame], aborted: Callable[[], bool]) -> None:
        """Put results in `out` in the order in which their frames were taken.

        Early results are kept; the thread that finishes the batch before puts them in `out`. A thread waits while it is
        more than `threads` batches ahead.
        """
        with self._in_order(thread):
            self._done[number] = results
            while number - self._handed_on > self.threads and not aborted():
                self._signs[thread] = time.monotonic()
                self._order.wait(_LOOK)
            while self._handed_on in self._done:
                self._put(thread, self._done.pop(self._handed_on), aborted)
                self._handed_on += 1
            self._order.notify_all()

    def _settle(self, thread: int, aborted: Callable[[], bool]) -> None:
        """Wait until all kept results are passed on, or until `aborted`: then cancel them."""
        with self._in_order(thread):
            while self._done and not aborted():
                self._signs[thread] = time.monotonic()
                self._order.wait(_LOOK)
            for left in self._done.values():
                _cancel(left)

    @contextmanager
    def _in_order(self, thread: int) -> Iterator[None]:
        """Hold the lock of the order; a thread that waits for the lock still gives signs of life."""
        while not self._order.acquire(timeout=_LOOK):
            self._signs[thread] = time.monotonic()
        try:
            yield
        finally:
            self._order.release()

    def _put(self, thread: int, results: list[ScoredFrame], aborted: Callable[[], bool]) -> None:
        self._account(results)
        while not aborted():
            self._signs[thread] = time.monotonic()
            try:
                self._out.put(results, timeout=_LOOK)
                return
            except Full:
                continue
        _cancel(results)

    def _account(self, results: list[ScoredFrame]) -> None:
        good = [(r.pending.frame, r.decision) for r in results if r.pending.frame and r.decision]
        model = results[0].model
        if model and good:
            self._failures, self.trouble = 0, ""
            self._owner.observe(model.bundle, [frame for frame, _ in good], [decision for _, decision in good])
        for result in results:
            if model and result.error:
                self._failed(model.bundle, result.error)

    def _failed(self, bundle: LoadedBundle, error: str) -> None:
        self.trouble = f"the engine fails: {error}"
        log.error("the engine failed on a frame", extra={"engine": bundle.engine, "error": error})
        self._owner.observe(bundle, [], None)
        self._failures += 1
        if self._failures >= _FAILURES and time.monotonic() - self._reloaded > 10.0:
            self._reloaded = time.monotonic()
            try:
                self._owner.reload(bundle)
            except Exception as failure:
                log.error("the bundle cannot be reloaded", extra={"error": str(failure)})


def _cancel(results: Sequence[ScoredFrame]) -> None:
    for result in results:
        result.pending.outcome.cancel()
