"""Frames that wait to be scored: a bounded queue for each source, and what happens when one is full."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from ahl_runtime.core.errors import Busy, RuntimeFault
from ahl_runtime.core.types import Decision, Frame
from ahl_runtime.line.settings import Policy


@dataclass(frozen=True, eq=False)
class StoredDecision:
    """A stored decision. `id`: in the store; `milliseconds`: by stage."""

    id: str
    decision: Decision
    frame: Frame
    milliseconds: Mapping[str, float]


@dataclass(eq=False)
class PendingFrame:
    """A frame that was accepted, until its outcome is stored. `error`: why there are no pixels, for a corrupt file.

    `key`, `path`: of a watched folder's file. `body`: what the pixels are of, whole, as it came: a file's bytes.
    `accepted`: monotonic seconds.
    """

    frame: Frame | None
    source: str
    name: str
    error: str = ""
    key: str = ""
    path: Path | None = None
    body: bytes = b""
    accepted: float = field(default_factory=time.monotonic)
    outcome: Future[StoredDecision] = field(default_factory=Future)

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames of one shape are scored together."""
        return self.frame.image.shape if self.frame else ()

    def refuse(self, error: RuntimeFault) -> None:
        """Tell whoever waits that there is no decision."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


@dataclass(eq=False)
class _Queue:
    policy: Policy
    size: int
    waiting: deque[PendingFrame] = field(default_factory=deque)
    dropped: int = 0


class FrameQueues:
    """`limits`: by source, what happens when its queue is full, and how many frames it holds. For any thread."""

    def __init__(self, limits: Mapping[str, tuple[Policy, int]]) -> None:
        self._queues = {name: _Queue(policy, size) for name, (policy, size) in limits.items()}
        self._order = deque(self._queues)
        self._changed = threading.Condition()
        self._closed = False

    def put(self, pending: PendingFrame, timeout: float | None) -> bool:
        """Accept a frame; a full queue drops its oldest, counted, or waits. False: no room within `timeout` seconds.

        Busy when the line stops.
        """
        queue = self._queues[pending.source]
        with self._changed:
            if queue.policy == "block":
                self._changed.wait_for(lambda: self._closed or len(queue.waiting) < queue.size, timeout)
            if self._closed:
                raise Busy("the line stops")
            if len(queue.waiting) >= queue.size:
                if queue.policy == "block":
                    return False
                queue.dropped += 1
                queue.waiting.popleft().refuse(Busy(f"dropped: {queue.size} newer frames of {pending.source} wait"))
            queue.waiting.append(pending)
            self._changed.notify_all()
            return True

    def take(self, most: int, linger: float, timeout: float) -> list[PendingFrame]:
        """Up to `most` frames of one shape, the sources in turn; waits `timeout` for one, `linger` for more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._any(), timeout)
            found = self._next(most, None)
            until = time.monotonic() + linger
            while found and len(found) < most and not self._any() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
                found += self._next(most - len(found), found[0].shape)
            self._changed.notify_all()
            return found

    def _any(self) -> bool:
        return any(queue.waiting for queue in self._queues.values())

    def _next(self, most: int, shape: tuple[int, ...] | None) -> list[PendingFrame]:
        found: list[PendingFrame] = []
        idle = 0
        while len(found) < most and idle < len(self._order):
            waiting = self._queues[self._order[0]].waiting
            self._order.rotate(-1)
            if waiting and shape in (None, waiting[0].shape):
                shape = waiting[0].shape
                found.append(waiting.popleft())
                idle = 0
            else:
                idle += 1
        return found

    def depth(self, source: str) -> int:
        """How many frames of a source wait."""
        with self._changed:
            return len(self._queues[source].waiting)

    def dropped(self, source: str) -> int:
        """How many frames of a source were dropped."""
        with self._changed:
            return self._queues[source].dropped

    def lose(self, source: str, count: int) -> None:
        """Count frames that were overwritten at their source before they came here."""
        with self._changed:
            self._queues[source].dropped += count

    def close(self) -> None:
        """Accept nothing more; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def waiting(self) -> bool:
        """Does any frame wait?"""
        with self._changed:
            return self._any()

    @property
    def drained(self) -> bool:
        """Closed, and nothing waits."""
        with self._changed:
            return self._closed and not self._any()

    def refuse_all(self, error: RuntimeFault) -> int:
        """Let go of what waits; how many."""
        with self._changed:
            left = [pending for queue in self._queues.values() for pending in queue.waiting]
            for queue in self._queues.values():
                queue.waiting.clear()
            self._changed.notify_all()
        for pending in left:
            pending.refuse(error)
        return len(left)
