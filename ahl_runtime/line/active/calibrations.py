"""Calibrations from the line's own frames: proposed, put in force, and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ahl_runtime.bundle.device_calibration import Change
from ahl_runtime.core.errors import BundleError
from ahl_runtime.line.active.loaded import LoadedBundle
from ahl_runtime.line.monitor.source_monitor import SourceMonitor
from ahl_runtime.line.store.journal import Journal
from ahl_runtime.score import recalibrate
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.recalibrate import Proposal
from calibration import ScoresError


def propose(
    monitor: SourceMonitor,
    rule: DecisionRule,
    store: Path,
    frames: int,
    *,
    alpha: float | None,
    confidence: float | None,
    tail: bool,
) -> Proposal:
    """From a source's newest frames but those marked as anomalies; nothing is written. CalibrationError, StoreError."""
    newest = monitor.newest(frames)
    with Journal(store) as journal:
        good = journal.marked_good([id for id, _, _ in newest])
    found = [(value, seen) for id, value, seen in newest if id in good]
    if len(found) < 2:
        raise ScoresError(f"{len(found)} frames of {monitor.name} since its rule last changed: wait for more")
    scores, statistics = [value for value, _ in found], [seen for _, seen in found]
    return recalibrate.fit(rule, scores, statistics, alpha=alpha, confidence=confidence, tail=tail)


def adopt(
    model: LoadedBundle, monitors: Mapping[str, SourceMonitor], source: str, proposal: Proposal, change: Change
) -> str:
    """Put it in force; its name. SideFileError; BundleError where it was made for another bundle."""
    if proposal.old.bundle != model.digest:
        raise BundleError("the bundle was swapped since the preview: preview again")
    side = model.side_files.add(model.artefact, source, proposal.new, change)
    _reread(model, monitors)
    return side.name


def undo(model: LoadedBundle, monitors: Mapping[str, SourceMonitor], source: str, change: Change) -> str:
    """Go back to the calibration before; the name of the one that was in force. SideFileError."""
    undone = model.side_files.undo(model.artefact, source, change)
    _reread(model, monitors)
    return undone


def _reread(model: LoadedBundle, monitors: Mapping[str, SourceMonitor]) -> None:
    before = {name: model.rule(name).name for name in monitors}
    model.read_rules()
    for name, monitor in monitors.items():
        if model.rule(name).name != before[name]:
            monitor.follow(model.rule(name))
