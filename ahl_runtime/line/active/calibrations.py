"""Fit a calibration to frames of the running line."""

from __future__ import annotations

from pathlib import Path

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
    """Fit to the newest frames of a source that are not marked as anomalies. CalibrationError, StoreError."""
    newest = monitor.newest(frames)
    with Journal(store) as journal:
        good = journal.marked_good([id for id, _, _ in newest])
    found = [(value, seen) for id, value, seen in newest if id in good]
    if len(found) < 2:
        raise ScoresError(f"{len(found)} frames of {monitor.name} since its rule last changed: wait for more")
    scores, statistics = [value for value, _ in found], [seen for _, seen in found]
    return recalibrate.fit(rule, scores, statistics, alpha=alpha, confidence=confidence, tail=tail)
