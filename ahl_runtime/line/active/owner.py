"""The owner of the active model. Every change goes through it: by an operator, or after an engine failure."""

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
_SHADOW, _SHADOW_SECONDS = 50, 10.0  # frames of a shadow run, and the most seconds to wait for them
_PROBATION = 200  # frames after a deployment during which the line may roll it back
_DEPLOYED = "deployed"


class ModelOwner:
    """Load the bundle deployed last, or that of the settings. BundleError, EngineError, SideFileError, SigningError.

    `current` never blocks. Each change holds one lock while it reads, checks, stores and activates, so two changes
    never mix; engines load and shadow runs score outside the lock. `recent_rejects`: the number of rejects among the
    newest decisions, and the number of these decisions. `changed`: called under the lock after each change. `trouble`:
    why a bundle was rolled back, or ''.
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
        self._deployments = threading.Lock()  # one deployment at a time; others wait
        self._shadow_run: ShadowRun | None = None
        self._probation: Probation | None = None
        bundle = self._load(self._deployed_last(journal))
        self._current = ActiveModel(bundle, bundle.rules())

    def current(self) -> ActiveModel:
        """The active model."""
        return self._current

    def adopt(self, source: str, proposal: Proposal, change: Change) -> str:
        """Activate a calibration and return its name. SideFileError; BundleError if it belongs to another bundle."""
        with self._lock:
            bundle = self._current.bundle
            if proposal.old.bundle != bundle.digest:
                raise BundleError("another bundle was deployed since the preview: preview again")
            side = bundle.side_files.add(bundle.artefact, source, proposal.new, change)
            self._activate(bundle, bundle.rules())
            return side.name

    def undo(self, source: str, change: Change) -> str:
        """Roll back to the previous calibration; returns the name of the one rolled back. SideFileError."""
        with self._lock:
            bundle = self._current.bundle
            rolled_back = bundle.side_files.undo(bundle.artefact, source, change)
            self._activate(bundle, bundle.rules())
            return rolled_back

    def deploy(self, path: Path, stopping: Callable[[], bool]) -> None:
        """Load a bundle, run it as a shadow of the active one for 50 frames or 10 seconds, then activate it.

        One caller at a time. If it fails during its probation, the line rolls back to the last bundle that passed its
        own probation. BundleError, EngineError, SideFileError, SigningError, StoreError: no change.
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
        """Reload a bundle whose engine failed; False if the bundle is no longer active.

        EngineError if the file now holds another bundle; other errors as in the constructor.
        """
        if self._current.bundle is not failed:
            return False
        fresh = self._load(failed.path)
        if fresh.digest != failed.digest:
            raise EngineError(f"{fresh.path}: the file now holds another bundle: deploy it")
        with self._lock:
            if self._current.bundle is not failed:
                return False
            self._activate(fresh, _rules_now(fresh, self._current.rules))
        log.warning("the engine was reloaded", extra={"engine": fresh.engine})
        return True

    def observe(self, bundle: LoadedBundle, frames: list[Frame], decisions: list[Decision] | None) -> None:
        """Take the decisions of a bundle on a batch, in order; None: its engine failed. May roll the bundle back."""
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
        """Run a shadow run; returns why `fresh` must not be activated, or ''."""
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
        """The share of frames that a good bundle may reject: its alpha, or twice the present share if larger."""
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
        """The bundle deployed last; that of the settings if they changed since, or if the deployed file is gone."""
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
    """The rules from a bundle's side files; `before` if a side file cannot be read, so that the line continues."""
    try:
        return bundle.rules()
    except SideFileError as error:
        log.error("calibrations cannot be read", extra={"bundle": str(bundle.path), "error": str(error)})
        return before
