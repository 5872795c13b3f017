"""Bounded queues of pending frames, one for each source; a full queue drops its oldest frame or blocks."""

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
    """A stored decision and its frame. `id`: its id in the store. `milliseconds`: the duration of each stage."""

    id: str
    decision: Decision
    frame: Frame
    milliseconds: Mapping[str, float]


@dataclass(eq=False)
class PendingFrame:
    """An accepted frame whose outcome is not stored yet. `error`: why a corrupt file has no pixels.

    `key`, `path`: the file of a watched folder. `body`: the bytes of the file that the pixels were decoded from, or
    b''. `accepted`: monotonic seconds.
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
        """The shape of the image, () without pixels. A batch has frames of one shape."""
        return self.frame.image.shape if self.frame else ()

    def refuse(self, error: RuntimeFault) -> None:
        """Set the outcome to `error`: there is no decision."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


@dataclass(eq=False)
class _Queue:
    policy: Policy
    size: int
    waiting: deque[PendingFrame] = field(default_factory=deque)
    dropped: int = 0


class FrameQueues:
    """`limits`: for each source, the policy of a full queue and the most frames it holds. Thread-safe."""

    def __init__(self, limits: Mapping[str, tuple[Policy, int]]) -> None:
        self._queues = {name: _Queue(policy, size) for name, (policy, size) in limits.items()}
        self._order = deque(self._queues)
        self._changed = threading.Condition()
        self._closed = False

    def put(self, pending: PendingFrame, timeout: float | None) -> bool:
        """Accept a frame. A full queue drops its oldest frame and counts it, or waits up to `timeout` seconds.

        False: the queue is still full. Busy: the line stops.
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
        """Take up to `most` frames of one shape, from the sources in turn.

        Waits at most `timeout` seconds for the first frame and `linger` seconds for more.
        """
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
        """The number of pending frames of a source."""
        with self._changed:
            return len(self._queues[source].waiting)

    def dropped(self, source: str) -> int:
        """The number of dropped frames of a source."""
        with self._changed:
            return self._queues[source].dropped

    def lose(self, source: str, count: int) -> None:
        """Count frames that were overwritten at their source as dropped."""
        with self._changed:
            self._queues[source].dropped += count

    def close(self) -> None:
        """Refuse new frames; pending frames can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def waiting(self) -> bool:
        """True if any frame is pending."""
        with self._changed:
            return self._any()

    @property
    def drained(self) -> bool:
        """True if the queues are closed and no frame is pending."""
        with self._changed:
            return self._closed and not self._any()

    def refuse_all(self, error: RuntimeFault) -> int:
        """Refuse all pending frames with `error`; returns their number."""
        with self._changed:
            left = [pending for queue in self._queues.values() for pending in queue.waiting]
            for queue in self._queues.values():
                queue.waiting.clear()
            self._changed.notify_all()
        for pending in left:
            pending.refuse(error)
        return len(left)
