"""The storing thread: it writes outcomes to the store in batches, and tries again until the disk accepts them."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from queue import Empty, Queue

from ahl_runtime.core.backoff import Backoff
from ahl_runtime.core.errors import Busy, EngineError, ImageError, StoreError
from ahl_runtime.line.config import LineConfig
from ahl_runtime.line.monitor.latency import StageLatencies
from ahl_runtime.line.monitor.source_monitor import SourceMonitor, statistics
from ahl_runtime.line.queues import StoredDecision
from ahl_runtime.line.scoring import ScoredFrame
from ahl_runtime.line.sources.folder import FolderSource, moved
from ahl_runtime.line.store.images import Images
from ahl_runtime.line.store.journal import Entry, Journal
from ahl_runtime.line.store.store import new_id

log = logging.getLogger(__name__)
_MOST = 64  # outcomes in one transaction
_SAVE = 10.0  # seconds between two saves of the drift alarms' states
_RETRY, _RETRY_MOST = 0.1, 2.0


class Recorder:
    """`notify`: called after each transaction, to wake the sinks. `trouble`: why the store cannot be written, or ''."""

    def __init__(
        self,
        config: LineConfig,
        waiting: Queue[list[ScoredFrame]],
        monitors: Mapping[str, SourceMonitor],
        latencies: StageLatencies,
        notify: Callable[[], None],
    ) -> None:
        self.trouble = ""
        self.alive = time.monotonic()
        self._path = config.store.path
        self._has_sinks = bool(config.sink)
        self._folders = {s.name: s for s in config.sources if isinstance(s, FolderSource)}
        self._images = Images(config.store)
        self._waiting, self._monitors, self._latencies, self._notify = waiting, monitors, latencies, notify
        self._journal: Journal | None = None

    def run(self, ended: Callable[[], bool], aborted: Callable[[], bool]) -> None:
        """Store outcomes until no more come (`ended`) and all are stored, or until `aborted`."""
        saved = time.monotonic()
        try:
            while not aborted():
                self.alive = time.monotonic()
                over = ended()  # asked before the queue is read, so that no outcome is missed
                batch = self._next()
                if batch:
                    self._store(batch, aborted)
                elif over:
                    break
                if time.monotonic() - saved > _SAVE:
                    saved = time.monotonic()
                    self._save()
            self._save()
        finally:
            if self._journal is not None:
                self._journal.__exit__(None, None, None)

    def _next(self) -> list[ScoredFrame]:
        found: list[ScoredFrame] = []
        try:
            found += self._waiting.get(timeout=0.25)
            while len(found) < _MOST:
                found += self._waiting.get_nowait()
        except Empty:
            pass
        return found

    def _store(self, batch: list[ScoredFrame], aborted: Callable[[], bool]) -> None:
        start = time.monotonic()
        entries = [self._entry(scored) for scored in batch]
        repeated = self._append(entries, aborted)
        if repeated is None:
            for scored in batch:
                scored.pending.refuse(Busy(f"not stored: {self.trouble}"))
            return
        now = time.monotonic()
        for scored, entry in zip(batch, entries, strict=True):
            self._resolve(scored, entry, now - start, now, entry.id in repeated)
        self._notify()

    def _entry(self, scored: ScoredFrame) -> Entry:
        pending, decision = scored.pending, scored.decision
        entry = Entry(new_id(), pending.source, pending.name, decision, scored.error, scored.engine, pending.key)
        if decision is None:
            return entry
        folder = self._folders.get(pending.source)
        if pending.path is not None and folder is not None and folder.done != "delete":
            path = moved(folder, pending.path, pending.key) if folder.done == "move" else pending.path
            return replace(entry, image=str(path.absolute()), sha256=hashlib.sha256(pending.body).hexdigest())
        if self._images.wanted(decision):
            try:
                image, sha256 = self._images.keep(entry.id, pending)
                return replace(entry, image=image, sha256=sha256)
            except OSError as error:
                self._monitors[pending.source].report_problem(f"images cannot be kept: {error.strerror or error}")
                log.error("an image could not be kept", extra={"id": entry.id, "error": str(error)})
        return entry

    def _append(self, entries: list[Entry], aborted: Callable[[], bool]) -> set[str] | None:
        """Store entries; returns the ids of those that were stored before, or None if `aborted`."""
        backoff = Backoff(_RETRY, _RETRY_MOST)
        while True:
            self.alive = time.monotonic()
            try:
                if self._journal is None:
                    self._journal = Journal(self._path, create=True)
                repeated = self._journal.append(entries, notify=self._has_sinks)
            except StoreError as error:
                if not self.trouble:
                    log.error("decisions cannot be stored", extra={"error": str(error)})
                self.trouble = str(error)
                self._close()
            else:
                if self.trouble:
                    log.warning("decisions are stored again")
                self.trouble = ""
                return repeated
            until = time.monotonic() + backoff.next()
            while (left := until - time.monotonic()) > 0:
                if aborted():
                    return None
                time.sleep(min(left, 0.1))

    def _close(self) -> None:
        """Close the store. The next attempt opens it again, and so finds a file that has come back."""
        if self._journal is not None:
            try:
                self._journal.__exit__(None, None, None)
            except sqlite3.Error:
                log.debug("closing failed", exc_info=True)
            self._journal = None

    def _resolve(self, scored: ScoredFrame, entry: Entry, stored: float, now: float, repeated: bool) -> None:
        """Set the outcome of a pending frame and update its monitor. `stored`: seconds; `now`: monotonic seconds."""
        pending, decision = scored.pending, scored.decision
        monitor = self._monitors[pending.source]
        if repeated:
            pending.refuse(StoreError(f"{pending.name}: the store already has its outcome"))
            return
        if decision is None or pending.frame is None:
            monitor.failed(f"frame {pending.name}: {scored.error}" if pending.name else scored.error)
            log.error("no decision", extra={"source": pending.source, "frame": pending.name, "error": scored.error})
            pending.refuse((EngineError if pending.frame else ImageError)(scored.error))
            return
        seconds = {"wait": scored.wait, "score": scored.score, "store": stored, "total": now - pending.accepted}
        for stage, value in seconds.items():
            self._latencies.add(stage, value)
        recorded = StoredDecision(entry.id, decision, pending.frame, {k: 1000 * v for k, v in seconds.items()})
        monitor.observe(recorded, statistics(recorded))
        if not pending.outcome.done():
            pending.outcome.set_result(recorded)

    def _save(self) -> None:
        """Save the drift alarms' states once; a full disk does not hold up decisions for them."""
        for name, monitor in self._monitors.items():
            text = monitor.drift_text()
            if text is None or self._journal is None:
                continue
            try:
                self._journal.put_state(f"drift.{name}", text)
            except StoreError as error:
                log.warning("the drift alarm's state was not saved", extra={"error": str(error)})
                return
