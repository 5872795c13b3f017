"""A running line: it takes frames from sources, scores them, stores the decisions and sends them to sinks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Histogram

from ahl_runtime.bundle.device_calibration import Change
from ahl_runtime.core.errors import Busy, NoSource, OutputError, SourceError
from ahl_runtime.core.types import Frame, Outputs
from ahl_runtime.engines.base import cores
from ahl_runtime.line.active import calibrations
from ahl_runtime.line.active.loaded import ActiveModel, LoadedBundle
from ahl_runtime.line.active.owner import ModelOwner
from ahl_runtime.line.config import LineConfig
from ahl_runtime.line.monitor.latency import StageLatencies
from ahl_runtime.line.monitor.source_monitor import SourceMonitor
from ahl_runtime.line.monitor.state import ModelState, State
from ahl_runtime.line.queues import FrameQueues, PendingFrame, StoredDecision
from ahl_runtime.line.scoring import ScoredFrame, ScoringStage
from ahl_runtime.line.sinks.open import open_sink
from ahl_runtime.line.sinks.outbox import Outbox
from ahl_runtime.line.sources.base import Triggered, cropped
from ahl_runtime.line.sources.open import open_source
from ahl_runtime.line.sources.push import PushSource
from ahl_runtime.line.sources.settings import SourceSettings
from ahl_runtime.line.store import retention
from ahl_runtime.line.store.images import Images
from ahl_runtime.line.store.journal import Journal
from ahl_runtime.line.store.lock import StoreLock
from ahl_runtime.line.store.recorder import Recorder
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.recalibrate import Proposal

log = logging.getLogger(__name__)
_HUNG = 60.0  # seconds; a thread that is silent for longer hangs


class Line:
    """A line of sources, one active bundle, one store and sinks. A context manager: it starts and stops the line.

    The constructor loads the bundle and opens the store: BundleError, EngineError, SideFileError, StoreError. `start`
    runs the line. Methods may be called from any thread.
    """

    def __init__(self, config: LineConfig) -> None:
        self.config = config
        self.store_path = config.store.path
        self._source_settings: dict[str, SourceSettings] = {s.name: s for s in config.sources}
        self._sources = {
            name: open_source(settings, self.store_path) for name, settings in self._source_settings.items()
        }
        self._lock = StoreLock(self.store_path)
        with self._lock.starting(), Journal(self.store_path, create=True) as journal:
            for name, count in journal.join([s.name for s in config.sink]).items():
                log.warning("a sink is no longer configured", extra={"sink": name, "not_sent": count})
            self._owner = ModelOwner(config, journal, self._recent_rejects, self._follow)
            saved = {name: journal.state(f"drift.{name}") for name in self._source_settings}
        rules = self._owner.current().rules
        self._monitors = {name: SourceMonitor(name, rules[name], saved[name]) for name in self._source_settings}
        self._queues = FrameQueues({s.name: (s.policy, s.queue) for s in self._source_settings.values()})
        self._latencies = StageLatencies()
        scored: Queue[list[ScoredFrame]] = Queue(2)
        threads, pipeline = cores(config.model.threads), config.pipeline
        self._scoring = ScoringStage(self._queues, scored, self._owner, threads, pipeline.batch, pipeline.linger)
        self._recorder = Recorder(config, scored, self._monitors, self._latencies, self._wake)
        self._outboxes = [Outbox(settings, config.store, partial(open_sink, settings)) for settings in config.sink]
        self._stopping, self._sinks_end, self._abort = threading.Event(), threading.Event(), threading.Event()
        self._threads: dict[str, list[threading.Thread]] = {"source": [], "pipeline": [], "sink": [], "retention": []}
        self.failure = ""

    # Running

    def start(self) -> None:
        """Start the threads; the line takes frames from now on."""
        for name, source in self._sources.items():
            monitor = self._monitors[name]
            if source is None:
                monitor.set_state("live", "waiting for frames over HTTP")
                continue
            give, lost = partial(self._give, name), partial(self._lost, name)
            run = partial(source.run, give, monitor.set_state, self._stopping.wait, lost)
            self._spawn("source", name, run)
        scoring = [
            self._spawn("pipeline", f"score {i}", partial(self._scoring.run, i, self._abort.is_set))
            for i in range(self._scoring.threads)
        ]

        def scored() -> bool:
            return not any(t.is_alive() for t in scoring)

        self._spawn("pipeline", "store", partial(self._recorder.run, scored, self._abort.is_set))
        for outbox in self._outboxes:
            self._spawn("sink", outbox.name, partial(outbox.run, self._sinks_end.wait, self._abort.is_set))
        self._spawn("retention", "retention", partial(retention.run, self.config.store, self._stopping.wait))

    def stop(self, timeout: float = 20.0) -> bool:
        """Stop in at most `timeout` seconds: refuse new frames, score and store pending ones, send messages.

        True: every accepted frame is stored. Messages that were not sent stay in the store until the next start.
        """
        until = time.monotonic() + timeout
        self._stopping.set()
        self._queues.close()
        _join(self._threads["pipeline"], until - 0.25 * timeout)
        stored = not any(t.is_alive() for t in self._threads["pipeline"])
        _join(self._threads["source"], until - 0.2 * timeout)
        self._sinks_end.set()
        self._wake()
        _join(self._threads["sink"], until)
        self._abort.set()
        left = self._queues.refuse_all(Busy("the line stopped"))
        _join([t for some in self._threads.values() for t in some], time.monotonic() + 2.0)
        for outbox in self._outboxes:
            outbox.close()
        self._lock.release()
        if left or not stored:
            log.warning("stopped before everything was decided", extra={"frames": left})
        return stored and not left

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def healthy(self) -> bool:
        """True while the threads that score and store are alive. If False, restart the process."""
        now = time.monotonic()
        alive = all(t.is_alive() for t in self._threads["pipeline"])
        return alive and not self.failure and max(now - self._scoring.alive, now - self._recorder.alive) < _HUNG

    def _spawn(self, group: str, name: str, target: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                target()
            except Exception as error:
                self.failure = f"{name}: {type(error).__name__}: {error}"
                log.exception("a thread failed", extra={"part": f"{group} {name}"})

        thread = threading.Thread(target=run, name=f"{group} {name}", daemon=True)
        self._threads[group].append(thread)
        thread.start()
        return thread

    def _give(self, source: str, pending: PendingFrame) -> bool:
        """For sources: add a frame to its queue; wait while the queue is full. False once the line stops.

        A frame without a source gets this one. SourceError for a frame of another.
        """
        if pending.frame and not pending.frame.source:
            pending.frame = replace(pending.frame, source=source)
        named = pending.frame.source if pending.frame else source
        if {named, pending.source} != {source}:
            raise SourceError(f"source {source} gave a frame of {named!r} and {pending.source!r}: give its own name")
        try:
            while not self._queues.put(pending, 0.5):
                pass
        except Busy:
            return False
        self._monitors[source].accepted()
        return True

    def _lost(self, source: str, count: int) -> None:
        """For sources: count frames that were overwritten before the source read them, as accepted and dropped."""
        self._monitors[source].accepted(count)
        self._queues.lose(source, count)

    def _wake(self) -> None:
        for outbox in self._outboxes:
            outbox.wake()

    # Frames

    def submit(
        self,
        image: NDArray[np.uint8],
        source: str | None = None,
        frame: str = "",
        captured: datetime | None = None,
        file: bytes = b"",
    ) -> StoredDecision:
        """Score a frame, uint8 [H, W, 3], and return its decision once the decision is on the disk.

        `source`: a push source; the first one by default. `file`: the bytes of the file that the image was decoded
        from; the image store keeps them, or the pixels as PNG without them. NoSource, ImageError, EngineError; Busy if
        the queue is full, or if there is no decision within the source's `wait` seconds.
        """
        settings = self._push(source)
        found = Frame(cropped(image, settings.roi), frame, settings.name, captured)
        pending = PendingFrame(found, settings.name, frame, body=b"" if settings.roi else file)
        until = time.monotonic() + settings.wait
        if not self._queues.put(pending, settings.wait):
            raise Busy(f"{settings.queue} frames of {settings.name} are pending: send fewer")
        self._monitors[settings.name].accepted()
        try:
            return pending.outcome.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            why = self._trouble() or "frames are pending"
            raise Busy(f"no decision within {settings.wait:g} s ({why}); it may still be stored") from None
        except CancelledError:
            raise Busy("the line stopped") from None

    def trigger(self, source: str) -> None:
        """Trigger a camera by software; the line scores the frame like any other.

        NoSource; SourceError if the source has no software trigger; Busy while its camera is disconnected.
        """
        self._monitor(source)
        found = self._sources[source]
        if not isinstance(found, Triggered):
            raise SourceError(f"source {source} has no software trigger: use a source of the kind gige")
        found.trigger()

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Score frames, uint8 [N, H, W, 3], without decisions; nothing is stored. EngineError.

        The batches have the line's batch size: memory stays bounded, and the line's own frames are scored in between.
        """
        model = self.model
        most = self.config.pipeline.batch or model.batch
        return Outputs.joined([model.infer(images[i : i + most]) for i in range(0, len(images), most)])

    def _push(self, source: str | None) -> PushSource:
        pushed = [p for p in self._source_settings.values() if isinstance(p, PushSource)]
        for settings in pushed:
            if source in (None, settings.name):
                return settings
        raise NoSource(
            f"no push source {str(source)[:80]!r}: "
            + (f"the line has {', '.join(p.name for p in pushed)}" if pushed else "add a [[source]] of the kind push")
        )

    # Status

    @property
    def model(self) -> LoadedBundle:
        """The active bundle; another one may be deployed at any time."""
        return self._owner.current().bundle

    def state(self) -> State:
        """The state of the line, for the operator."""
        model = self.model
        sources = [
            monitor.state(dropped=self._queues.dropped(name), queue=self._queues.depth(name))
            for name, monitor in self._monitors.items()
        ]
        return State(
            model=ModelState(name=model.name, digest=model.digest, engine=model.engine),
            rejects=sum(s.rejected for s in sources),
            faults=self._faults(),
            sources=sources,
        )

    def _faults(self) -> list[str]:
        found = [self.failure, self._recorder.trouble, self._scoring.trouble, self._owner.trouble]
        for name, monitor in self._monitors.items():
            if trouble := monitor.trouble:
                found.append(f"{name}: {trouble}")
            state = monitor.state(dropped=0, queue=0)
            if state.state in ("gone", "frozen"):
                found.append(f"{name}: {state.said}")
        found += [f"sink {o.name}: {o.depth} messages not sent: {o.last_error}" for o in self._outboxes if o.last_error]
        return [text for text in found if text]

    def _trouble(self) -> str:
        return self.failure or self._recorder.trouble or self._scoring.trouble

    def latencies(self) -> Histogram:
        """The duration of each stage, since the process started."""
        return self._latencies.histogram

    def check_ready(self) -> None:
        """Busy while the line cannot score and store frames."""
        if self._stopping.is_set() or not self._threads["pipeline"]:
            raise Busy("the line is not running")
        if trouble := self._trouble():
            raise Busy(trouble)

    def latest(self, source: str) -> StoredDecision | None:
        """The newest decision of a source and its frame; None before the first. NoSource."""
        return self._monitor(source).latest

    def picture(self, source: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """The newest frame of a source, uint8 [H, W, 3], and its anomaly map, float32 [h, w]. NoSource."""
        found = self.latest(source)
        return (found.frame.image, found.decision.anomaly_map) if found else None

    def keep(self, id: str) -> bool:
        """Keep the image of a recent decision, so that it can be marked; False if the frame is no longer in memory.

        The line holds about 8 MB of the newest frames of each source. OutputError, StoreError.
        """
        for name, monitor in self._monitors.items():
            frame = monitor.frame(id)
            if frame is None:
                continue
            try:
                image, sha256 = Images(self.config.store).keep(id, PendingFrame(frame, name, frame.id))
            except OSError as error:
                raise OutputError(
                    f"{self.config.store.images}: cannot be written ({error.strerror or error})"
                ) from error
            with Journal(self.store_path) as journal:
                journal.add_image(id, image, sha256)
            return True
        return False

    def _monitor(self, source: str) -> SourceMonitor:
        try:
            return self._monitors[source]
        except KeyError:
            raise NoSource(f"no source {source[:80]!r}: the line has {', '.join(self._monitors)}") from None

    # Changes

    def rule(self, source: str) -> DecisionRule:
        """The active decision rule of a source. NoSource."""
        self._monitor(source)
        return self._owner.current().rules[source]

    def reset_drift(self, source: str) -> None:
        """Restart the drift alarm. NoSource."""
        self._monitor(source).reset_drift()

    def propose(
        self,
        source: str,
        frames: int,
        *,
        alpha: float | None = None,
        confidence: float | None = None,
        tail: bool = False,
    ) -> Proposal:
        """Fit a calibration to the newest frames of a source and preview its effect; nothing is written.

        It uses at most 1000 frames since this process started and since the rule last changed, without frames marked
        as anomalies. NoSource, CalibrationError, StoreError.
        """
        return calibrations.propose(
            self._monitor(source),
            self.rule(source),
            self.store_path,
            frames,
            alpha=alpha,
            confidence=confidence,
            tail=tail,
        )

    def adopt(self, source: str, proposal: Proposal, change: Change) -> str:
        """Activate a calibration and return its name. NoSource, SideFileError."""
        self._monitor(source)
        return self._owner.adopt(source, proposal, change)

    def undo(self, source: str, change: Change) -> str:
        """Roll back to the previous calibration; returns the name of the one rolled back. NoSource, SideFileError."""
        self._monitor(source)
        return self._owner.undo(source, change)

    def deploy(self, path: Path) -> None:
        """Deploy a bundle without losing a frame: load it, check it, score a shadow run, then activate it.

        The line rolls it back if it fails within its first 200 frames, or rejects far more of them than expected.
        BundleError, EngineError, SideFileError, SigningError: the old bundle stays active.
        """
        self._owner.deploy(path, self._stopping.is_set)

    def _recent_rejects(self) -> tuple[int, int]:
        """The number of rejects among the newest decisions of all sources, and the number of these decisions."""
        found = [monitor.rejects() for monitor in self._monitors.values()]
        return sum(rejected for rejected, _ in found), sum(seen for _, seen in found)

    def _follow(self, model: ActiveModel) -> None:
        """Give each source monitor the rule that is active now."""
        for name, monitor in self._monitors.items():
            monitor.follow(model.rules[name])


def _join(threads: list[threading.Thread], until: float) -> None:
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
