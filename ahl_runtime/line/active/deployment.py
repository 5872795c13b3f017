"""Which bundle decides: what was deployed last, a swap without losing a frame, and going back where it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from ahl_runtime.core.errors import BundleError, EngineError, StoreError
from ahl_runtime.core.types import Decision, Frame
from ahl_runtime.line.active.loaded import LoadedBundle
from ahl_runtime.line.active.shadow import Probation, ShadowRun
from ahl_runtime.line.config import LineConfig
from ahl_runtime.line.monitor.source_monitor import SourceMonitor
from ahl_runtime.line.store.journal import Journal

log = logging.getLogger(__name__)
_SHADOW, _SHADOW_SECONDS = 50, 10.0  # frames that a new bundle scores beside the old one, and how long to wait for them
_PROBATION = 200  # frames after a swap in which it may be taken back
_DEPLOYED = "deployed"


class InForce(Protocol):
    """Who holds the model that decides."""

    model: LoadedBundle


class Deployment:
    """`config`: of the line. `trouble`: that a bundle was taken back, and why, or ''."""

    def __init__(self, config: LineConfig) -> None:
        self.trouble = ""
        self._config = config
        self._shadow_run: ShadowRun | None = None
        self._probation: Probation | None = None

    def first(self, journal: Journal) -> LoadedBundle:
        """What was deployed last, unless the settings name another bundle since then, or it is gone.

        BundleError, EngineError, SideFileError, SigningError.
        """
        asked = self._config.model.bundle.absolute()
        kept = journal.state(_DEPLOYED)
        if kept is not None:
            configured, _, deployed = kept.partition("\n")
            if configured == str(asked) and Path(deployed).is_file():
                return self._load(Path(deployed))
        return self._load(asked)

    def again(self, model: LoadedBundle) -> LoadedBundle:
        """The same bundle, loaded anew. EngineError where another lies there; as `first`."""
        fresh = self._load(model.path)
        if fresh.digest != model.digest:
            raise EngineError(f"{fresh.path}: another bundle lies there now: deploy it")
        return fresh

    def swap(self, path: Path, line: InForce, monitors: Iterable[SourceMonitor], stopping: Callable[[], bool]) -> None:
        """Load a bundle, let it score beside the one in force, then put it in its place; one caller at a time.

        Waits for 50 frames or 10 seconds, whichever is first. BundleError, EngineError, SideFileError, SigningError
        leave the old one in force.
        """
        monitors = list(monitors)
        old, fresh = line.model, self._load(path)
        shadow_run = ShadowRun(fresh, _SHADOW)
        self._shadow_run = shadow_run
        try:
            until = time.monotonic() + _SHADOW_SECONDS
            while not shadow_run.over.wait(0.2) and time.monotonic() < until and not stopping():
                pass
        finally:
            self._shadow_run = None
        if shadow_run.refusal:
            raise BundleError(f"{path}: refused: {shadow_run.refusal}; {old.path.name} stays in force")
        rejected, seen = (sum(v) for v in zip(*(w.rejects() for w in monitors), strict=True))
        alpha = max(fresh.rule(monitor.name).calibration.alpha for monitor in monitors)
        self.trouble = ""
        self._keep(path)
        expected = max(alpha, 2 * (rejected + 1) / (seen + 2) if seen else 0.0)
        self._probation = Probation(old, fresh, _PROBATION, expected)
        line.model = fresh
        log.info("a bundle was put in force", extra={"bundle": str(path), "digest": fresh.digest})

    def seen(self, line: InForce, model: LoadedBundle, frames: list[Frame], decisions: list[Decision] | None) -> None:
        """After each batch, in order; decisions: None where the engine failed. The old one comes back if it must."""
        shadow_run, probation = self._shadow_run, self._probation
        if shadow_run is not None and decisions is not None:
            shadow_run.see(frames, decisions)
        if probation is None or model is not probation.new:
            return
        reason = probation.see(decisions)
        if reason or probation.over:
            self._probation = None
        if reason:
            line.model = probation.old
            self._taken_back(probation, reason)

    def _taken_back(self, probation: Probation, reason: str) -> None:
        old, new = probation.old, probation.new
        self.trouble = f"{old.name} is in force again: {new.name} was taken back: {reason}"
        log.error("a bundle was taken back", extra={"bundle": str(new.path), "reason": reason})
        try:
            self._keep(old.path)
        except StoreError as error:
            log.error("the swap back could not be stored", extra={"error": str(error)})

    def _load(self, path: Path) -> LoadedBundle:
        return LoadedBundle(self._config.model, path, [source.name for source in self._config.sources])

    def _keep(self, path: Path) -> None:
        with Journal(self._config.store.path) as journal:
            journal.put_state(_DEPLOYED, f"{self._config.model.bundle.absolute()}\n{path.absolute()}")
