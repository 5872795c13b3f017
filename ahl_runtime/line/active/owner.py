"""The one owner of the active model: whatever changes it, a person or a failing engine, goes through here."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ahl_runtime.bundle.device_calibration import Change
from ahl_runtime.core.errors import BundleError, EngineError, SideFileError, StoreError
from ahl_runtime.core.types import Decision, Frame
from ahl_runtime.line.active.loaded import ActiveModel, LoadedBundle
from ahl_runtime.line.active.shadow import Probation, ShadowRun
from ahl_runtime.line.config import LineConfig
from ahl_runtime.line.store.journal import Journal
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.recalibrate import Proposal

log = logging.getLogger(__name__)
_SHADOW, _SHADOW_SECONDS = 50, 10.0  # frames of a shadow run, and how long to wait for them
_PROBATION = 200  # frames after a deployment in which it may be rolled back
_DEPLOYED = "deployed"


class ModelOwner:
    """Loads what was deployed last, or what the settings name; BundleError, EngineError, SideFileError, SigningError.

    `current` never waits. Every change is read, checked, stored and made under one lock, so that two of them never mix:
    engines load and shadow runs score outside it. `recent_rejects`: how many of the newest decisions are rejects, and
    how many there are. `changed`: called under the lock after each change. `trouble`: why a bundle was rolled back, or
    an empty text.
    """

    def __init__(
        self,
        config: LineConfig,
        journal: Journal,
        recent_rejects: Callable[[], tuple[int, int]],
        changed: Callable[[ActiveModel], None],
    ) -> None:
        self.trouble = ""
        self._config, self._recent_rejects, self._changed = config, recent_rejects, changed
        self._lock = threading.Lock()
        self._deployments = threading.Lock()  # one at a time: the next one waits
        self._shadow_run: ShadowRun | None = None
        self._probation: Probation | None = None
        bundle = self._load(self._deployed_last(journal))
        self._current = ActiveModel(bundle, bundle.rules())

    def current(self) -> ActiveModel:
        """What decides now."""
        return self._current

    def adopt(self, source: str, proposal: Proposal, change: Change) -> str:
        """Activate a calibration; its name. SideFileError; BundleError if it was made for another bundle."""
        with self._lock:
            bundle = self._current.bundle
            if proposal.old.bundle != bundle.digest:
                raise BundleError("another bundle was deployed since the preview: preview again")
            side = bundle.side_files.add(bundle.artefact, source, proposal.new, change)
            self._activate(bundle, bundle.rules())
            return side.name

    def undo(self, source: str, change: Change) -> str:
        """Roll back to the calibration before; the name of the one that was active. SideFileError."""
        with self._lock:
            bundle = self._current.bundle
            undone = bundle.side_files.undo(bundle.artefact, source, change)
            self._activate(bundle, bundle.rules())
            return undone

    def deploy(self, path: Path, stopping: Callable[[], bool]) -> None:
        """Load a bundle, let it score the frames of the active one for 50 frames or 10 seconds, then activate it.

        One caller at a time. If it fails soon after, the last bundle that passed its probation comes back: never one
        that was itself on probation. BundleError, EngineError, SideFileError, SigningError, StoreError: no change.
        """
        with self._deployments:
            fresh = self._load(path)
            if refusal := self._shadow(fresh, stopping):
                active = self._current.bundle.path.name
                raise BundleError(f"{path}: refused: {refusal}; {active} stays active")
            with self._lock:
                rules = fresh.rules()
                proven = self._probation.proven if self._probation else self._current
                self._store(path)
                self._probation = Probation(proven, fresh, _PROBATION, self._expected_rejects(rules))
                self.trouble = ""
                self._activate(fresh, rules)
        log.info("a bundle was deployed", extra={"bundle": str(path), "digest": fresh.digest})

    def reload(self, failed: LoadedBundle) -> bool:
        """Load a bundle whose engine fails anew; False if it is no longer the active one.

        EngineError if another bundle lies in its place; else as the constructor.
        """
        if self._current.bundle is not failed:
            return False
        fresh = self._load(failed.path)
        if fresh.digest != failed.digest:
            raise EngineError(f"{fresh.path}: another bundle lies there now: deploy it")
        with self._lock:
            if self._current.bundle is not failed:
                return False
            self._activate(fresh, _rules_now(fresh, self._current.rules))
        log.warning("the engine was loaded anew", extra={"engine": fresh.engine})
        return True

    def observe(self, bundle: LoadedBundle, frames: list[Frame], decisions: list[Decision] | None) -> None:
        """What a bundle decided on a batch, in order; None: its engine failed. Rolls it back if it must."""
        shadow_run = self._shadow_run
        if shadow_run is not None and decisions is not None:
            shadow_run.see(frames, decisions)
        if self._probation is None:
            return
        with self._lock:
            probation = self._probation
            if probation is None or bundle is not probation.fresh:
                return
            if reason := probation.see(decisions):
                self._roll_back(probation, reason)
            elif probation.over:
                self._probation = None

    def _shadow(self, fresh: LoadedBundle, stopping: Callable[[], bool]) -> str:
        """Why it must not become active, or an empty text."""
        run = ShadowRun(fresh, fresh.rules(), _SHADOW)
        self._shadow_run = run
        try:
            until = time.monotonic() + _SHADOW_SECONDS
            while not run.over.wait(0.2) and time.monotonic() < until and not stopping():
                pass
        finally:
            self._shadow_run = None
        return run.refusal

    def _expected_rejects(self, rules: Mapping[str, DecisionRule]) -> float:
        """The share of frames that a sound bundle may reject: what it promises, or twice what is rejected now."""
        rejected, seen = self._recent_rejects()
        alpha = max(rule.calibration.alpha for rule in rules.values())
        return max(alpha, 2 * (rejected + 1) / (seen + 2) if seen else 0.0)

    def _roll_back(self, probation: Probation, reason: str) -> None:
        proven, fresh = probation.proven.bundle, probation.fresh
        self._probation = None
        self.trouble = f"{proven.name} is active again: {fresh.name} was rolled back: {reason}"
        log.error("a bundle was rolled back", extra={"bundle": str(fresh.path), "reason": reason})
        self._activate(proven, _rules_now(proven, probation.proven.rules))
        try:
            self._store(proven.path)
        except StoreError as error:
            log.error("the roll-back could not be stored", extra={"error": str(error)})

    def _activate(self, bundle: LoadedBundle, rules: Mapping[str, DecisionRule]) -> None:
        self._current = ActiveModel(bundle, rules)
        self._changed(self._current)

    def _deployed_last(self, journal: Journal) -> Path:
        """The settings' bundle if they name another one since the last deployment, or if that file is gone."""
        asked = self._config.model.bundle.absolute()
        kept = journal.state(_DEPLOYED)
        if kept is not None:
            configured, _, deployed = kept.partition("\n")
            if configured == str(asked) and Path(deployed).is_file():
                return Path(deployed)
        return asked

    def _load(self, path: Path) -> LoadedBundle:
        return LoadedBundle(self._config.model, path, [source.name for source in self._config.sources])

    def _store(self, path: Path) -> None:
        with Journal(self._config.store.path) as journal:
            journal.put_state(_DEPLOYED, f"{self._config.model.bundle.absolute()}\n{path.absolute()}")


def _rules_now(bundle: LoadedBundle, before: Mapping[str, DecisionRule]) -> Mapping[str, DecisionRule]:
    """A bundle's rules as its side files are now; those of before where one cannot be read: the line goes on."""
    try:
        return bundle.rules()
    except SideFileError as error:
        log.error("calibrations cannot be read", extra={"bundle": str(bundle.path), "error": str(error)})
        return before
