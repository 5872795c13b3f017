"""A line: sources, one engine, the store and sinks, and what can be asked of them while they run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
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
from ahl_runtime.line.store.recorder import Recorder
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.recalibrate import Proposal

log = logging.getLogger(__name__)
_HUNG = 60.0  # seconds without a sign of life of a thread


class Line:
    """Loads the bundle and opens the store; `start` makes it run. A context manager that does both, and stops.

    BundleError, EngineError, SideFileError, StoreError. Methods may be called from any thread.
    """

    def __init__(self, config: LineConfig) -> None:
        self.config = config
        self.store_path = config.store.path
        self._source_settings: dict[str, SourceSettings] = {s.name: s for s in config.sources}
        with Journal(self.store_path, create=True) as journal:
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
        self._scoring = ScoringStage(
            self._queues,
            scored,
            self._owner,
            threads,
            pipeline.batch,
            pipeline.linger,
        )
        self._recorder = Recorder(config, scored, self._monitors, self._latencies, self._wake)
        self._outboxes = [Outbox(settings, config.store, partial(open_sink, settings)) for settings in config.sink]
        self._sources = {
            name: open_source(settings, self.store_path) for name, settings in self._source_settings.items()
        }
        self._stopping, self._sinks_end, self._abort = threading.Event(), threading.Event(), threading.Event()
        self._threads: dict[str, list[threading.Thread]] = {"source": [], "pipeline": [], "sink": [], "retention": []}
        self.failure = ""

    # Running

    def start(self) -> None:
        """Begin to take frames."""
        for name, source in self._sources.items():
            monitor = self._monitors[name]
            if source is None:
                monitor.say("live", "waiting for frames over HTTP")
                continue
            run = partial(source.run, self._give, monitor.say, self._stopping.wait, partial(self._lost, name))
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
        """Accept no more frames, decide and store those that wait, and send messages, for at most `timeout` seconds.

        True: every accepted frame is stored. Messages that were not sent wait in the store for the next start.
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
        """Are the threads that decide and store alive? If not, only a restart helps."""
        now = time.monotonic()
        alive = all(t.is_alive() for t in self._threads["pipeline"])
        return alive and not self.failure and max(now - self._scoring.alive, now - self._recorder.alive) < _HUNG

    def _spawn(self, group: str, name: str, target: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                target()
            except Exception as error:
                self.failure = f"{name}: {type(error).__name__}: {error}"
                log.exception("a thread ended", extra={"part": f"{group} {name}"})

        thread = threading.Thread(target=run, name=f"{group} {name}", daemon=True)
        self._threads[group].append(thread)
        thread.start()
        return thread

    def _give(self, pending: PendingFrame) -> bool:
        """For sources: add a frame; waits while the queue is full. False once the line stops."""
        try:
            while not self._queues.put(pending, 0.5):
                pass
        except Busy:
            return False
        self._monitors[pending.source].accepted()
        return True

    def _lost(self, source: str, count: int) -> None:
        """For sources: count frames that were overwritten before they could be read, as accepted and dropped."""
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
        """Decide on a frame, uint8 [H, W, 3], and store the decision; returns when it is on the disk.

        `source`: one of the kind push; the first by default. `file`: the file that the image was decoded from, which is
        what an image store keeps; without it, the pixels are kept as PNG. NoSource, ImageError, EngineError; Busy if
        the queue has no room, or there is no decision within the source's `wait` seconds.
        """
        settings = self._push(source)
        found = Frame(cropped(image, settings.roi), frame, settings.name, captured)
        pending = PendingFrame(found, settings.name, frame, body=b"" if settings.roi else file)
        until = time.monotonic() + settings.wait
        if not self._queues.put(pending, settings.wait):
            raise Busy(f"{settings.queue} frames of {settings.name} wait: send fewer")
        self._monitors[settings.name].accepted()
        try:
            return pending.outcome.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            why = self._trouble() or "frames wait"
            raise Busy(f"no decision within {settings.wait:g} s ({why}); it may still be stored") from None
        except CancelledError:
            raise Busy("the line stopped") from None

    def trigger(self, source: str) -> None:
        """Ask a camera for one frame; it is decided on like any other.

        NoSource; SourceError where the source is not triggered by software; Busy while its camera is gone.
        """
        self._monitor(source)
        found = self._sources[source]
        if not isinstance(found, Triggered):
            raise SourceError(f"source {source} takes no trigger: cameras of the kind gige do")
        found.trigger()

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Score frames, uint8 [N, H, W, 3]; nothing is decided or stored. EngineError.

        They are scored in batches of the line's size, so that memory stays bounded and the line's frames take turns.
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
            f"no source {str(source)[:80]!r} that frames can be sent to: "
            + (f"there is {', '.join(p.name for p in pushed)}" if pushed else "the line has none of the kind push")
        )

    # What is known

    @property
    def model(self) -> LoadedBundle:
        """The bundle that decides now; another one may be deployed at any time."""
        return self._owner.current().bundle

    def state(self) -> State:
        """The state that the operator sees."""
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
        found += [f"sink {o.name}: {o.depth} messages wait: {o.last_error}" for o in self._outboxes if o.last_error]
        return [text for text in found if text]

    def _trouble(self) -> str:
        return self.failure or self._recorder.trouble or self._scoring.trouble

    def latencies(self) -> Histogram:
        """How long each stage took, since the process began."""
        return self._latencies.histogram

    def check_ready(self) -> None:
        """Busy while no frame can be decided on and stored."""
        if self._stopping.is_set() or not self._threads["pipeline"]:
            raise Busy("the line does not run")
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

        About 8 MB of the newest frames of each source are held. OutputError, StoreError.
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
            raise NoSource(f"no source {source[:80]!r}: there is {', '.join(self._monitors)}") from None

    # Changes

    def rule(self, source: str) -> DecisionRule:
        """What decides for a source. NoSource."""
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
        """A calibration from the newest frames of a source, and what it would change; nothing is written.

        It takes at most 1000 frames, all since this process began and since the rule last changed; frames marked as
        anomalies are left out. NoSource, CalibrationError, StoreError.
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
        """Activate a calibration; its name. NoSource, SideFileError."""
        self._monitor(source)
        return self._owner.adopt(source, proposal, change)

    def undo(self, source: str, change: Change) -> str:
        """Roll back to the calibration before; the name of the one that was active. NoSource, SideFileError."""
        self._monitor(source)
        return self._owner.undo(source, change)

    def deploy(self, path: Path) -> None:
        """Replace the bundle without losing a frame: load it, check it, let it score in the shadow, then activate it.

        If it fails within its first 200 frames, or rejects far more than expected, it is rolled back.
        BundleError, EngineError, SideFileError, SigningError: the active one stays.
        """
        self._owner.deploy(path, self._stopping.is_set)

    def _recent_rejects(self) -> tuple[int, int]:
        """Of the newest decisions of all sources, how many are rejects, and how many there are."""
        found = [monitor.rejects() for monitor in self._monitors.values()]
        return sum(rejected for rejected, _ in found), sum(seen for _, seen in found)

    def _follow(self, model: ActiveModel) -> None:
        """The monitors watch for drift from what decides now."""
        for name, monitor in self._monitors.items():
            monitor.follow(model.rules[name])


def _join(threads: list[threading.Thread], until: float) -> None:
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
