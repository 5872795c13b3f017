"""Calibrations from the line's own frames: proposed, put in force, and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ahl_runtime import recalibrate
from ahl_runtime.decision import Rule
from ahl_runtime.errors import BundleError
from ahl_runtime.line.journal import Journal
from ahl_runtime.line.model import Model
from ahl_runtime.line.watch import Watch
from ahl_runtime.recalibrate import Proposal
from ahl_runtime.sidefile import Change
from calibration import ScoresError


def propose(
    watch: Watch,
    rule: Rule,
    store: Path,
    frames: int,
    *,
    alpha: float | None,
    confidence: float | None,
    tail: bool,
) -> Proposal:
    """From a source's newest frames but those marked as anomalies; nothing is written. CalibrationError, StoreError."""
    newest = watch.newest(frames)
    with Journal(store) as journal:
        good = journal.marked_good([id for id, _, _ in newest])
    found = [(value, seen) for id, value, seen in newest if id in good]
    if len(found) < 2:
        raise ScoresError(f"{len(found)} frames of {watch.name} since its rule last changed: wait for more")
    scores, statistics = [value for value, _ in found], [seen for _, seen in found]
    return recalibrate.fit(rule, scores, statistics, alpha=alpha, confidence=confidence, tail=tail)


def adopt(model: Model, watches: Mapping[str, Watch], source: str, proposal: Proposal, change: Change) -> str:
    """Put it in force; its name. SideFileError; BundleError where it was made for another bundle."""
    if proposal.old.bundle != model.digest:
        raise BundleError("the bundle was swapped since the preview: preview again")
    side = model.side_files.add(model.artefact, source, proposal.new, change)
    _reread(model, watches)
    return side.name


def undo(model: Model, watches: Mapping[str, Watch], source: str, change: Change) -> str:
    """Go back to the calibration before; the name of the one that was in force. SideFileError."""
    undone = model.side_files.undo(model.artefact, source, change)
    _reread(model, watches)
    return undone


def _reread(model: Model, watches: Mapping[str, Watch]) -> None:
    before = {name: model.rule(name).name for name in watches}
    model.read_rules()
    for name, watch in watches.items():
        if model.rule(name).name != before[name]:
            watch.follow(model.rule(name))
