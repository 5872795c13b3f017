"""The monitor of one source: its counts, newest frames, drift alarm and state."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import Counter, OrderedDict, deque

import calibration
from ahl_runtime.core.types import Frame
from ahl_runtime.line.monitor.recent_scores import RecentScores
from ahl_runtime.line.monitor.state import DriftState, Latest, Point, SourceState
from ahl_runtime.line.queues import StoredDecision
from ahl_runtime.score.decision import DecisionRule
from calibration import CalibrationError, Drift, FrameStatistics
from calibration.frames import FEWEST

log = logging.getLogger(__name__)
_RECENT = 60  # decisions on the score strip of the page
_KEPT = 1000  # scores for a calibration
_PIXELS = 8_000_000  # bytes of the newest frames; an operator can still mark these if their image was not kept
_SHOWN = 3600.0  # seconds for which a problem is shown
_SMALLEST = 8  # pixels; smaller frames have no statistics


def statistics(recorded: StoredDecision) -> FrameStatistics | None:
    """The statistics of a frame's pixels; None if the frame is too small."""
    image = recorded.frame.image
    return calibration.frame_statistics(image) if min(image.shape[:2]) >= _SMALLEST else None


class SourceMonitor:
    """`rule`: the active decision rule. `saved`: the drift alarm's state from `drift_text`, or None. Thread-safe."""

    def __init__(self, name: str, rule: DecisionRule, saved: str | None = None) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._recent: deque[Point] = deque(maxlen=_RECENT)
        self._newest = RecentScores(_KEPT)
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        self._bytes = 0
        self._latest: StoredDecision | None = None
        self._state, self._message = "waiting", "no frame yet"
        self._trouble, self._problem_since = "", 0.0
        self._follow(rule, saved)

    def follow(self, rule: DecisionRule) -> None:
        """Follow the active rule. A new rule clears the scores and restarts the drift alarm."""
        with self._lock:
            if (rule.bundle, rule.name) != (self.rule.bundle, self.rule.name):
                self._newest.clear()
                self._follow(rule, None)

    def _follow(self, rule: DecisionRule, saved: str | None) -> None:
        self.rule = rule
        self._drift: Drift | None = None
        if rule.calibration.n >= FEWEST:
            self._drift = Drift(rule.calibration)
            if saved is not None:
                try:
                    self._drift = Drift.from_dict(rule.calibration, json.loads(saved))
                except (CalibrationError, ValueError):
                    saved = None  # the state of a calibration that is no longer active

    def set_state(self, state: str, message: str) -> None:
        """Set the state of the source: one word, and one sentence for the operator. A new failure is logged."""
        with self._lock:
            new = (state, message) != (self._state, self._message)
            self._state, self._message = state, message
        if new and state in ("gone", "frozen"):
            log.warning("a source fails", extra={"source": self.name, "error": message})

    def accepted(self, count: int = 1) -> None:
        """Count accepted frames."""
        with self._lock:
            self._counts["frames"] += count

    def failed(self, error: str) -> None:
        """Count a frame without a decision, and report the problem."""
        with self._lock:
            self._counts["faults"] += 1
            n = self._counts["faults"]
        self.report_problem(f"{n} frames without a decision, the last: {error}")

    def report_problem(self, problem: str) -> None:
        """Show a problem to the operator."""
        with self._lock:
            self._trouble, self._problem_since = problem, time.monotonic()

    @property
    def trouble(self) -> str:
        """The last problem, for an hour: operators ignore a permanent alarm. The store and the log keep all of them."""
        with self._lock:
            return self._trouble if time.monotonic() - self._problem_since < _SHOWN else ""

    def observe(self, recorded: StoredDecision, found: FrameStatistics | None) -> None:
        """Take a stored decision, and the statistics of its frame or None."""
        decision = recorded.decision
        with self._lock:
            self._counts[decision.verdict] += 1
            self._recent.append(Point(id=recorded.id, score=decision.score, verdict=decision.verdict))
            self._latest = recorded
            self._frames[recorded.id] = recorded.frame
            self._bytes += recorded.frame.image.nbytes
            while self._bytes > _PIXELS and len(self._frames) > 1:
                self._bytes -= self._frames.popitem(last=False)[1].image.nbytes
            if decision.calibration != self.rule.name or decision.bundle != self.rule.bundle:
                return  # the rule has changed since the decision
            self._newest.add(recorded.id, decision.score, found)
            if self._drift is not None:
                framed = self.rule.calibration.frames is not None
                if found is not None or not framed:
                    self._drift.observe(decision.score, found if framed else None)

    def reset_drift(self) -> None:
        """Restart the drift alarm."""
        with self._lock:
            if self._drift is not None:
                self._drift.reset()

    def drift_text(self) -> str | None:
        """The drift alarm's state as JSON, for the store; None without a drift alarm."""
        with self._lock:
            return json.dumps(self._drift.to_dict()) if self._drift else None

    def newest(self, most: int) -> list[tuple[str, float, FrameStatistics | None]]:
        """Id, score and statistics of the newest frames under the active rule, at most 1000."""
        with self._lock:
            return self._newest.last(most)

    def rejects(self) -> tuple[int, int]:
        """The number of rejects among the newest decisions, and the number of these decisions."""
        with self._lock:
            return sum(p.verdict == "reject" for p in self._recent), len(self._recent)

    @property
    def latest(self) -> StoredDecision | None:
        """The newest decision and its frame; None before the first."""
        with self._lock:
            return self._latest

    def frame(self, id: str) -> Frame | None:
        """The frame of a recent decision; None if it is no longer in memory."""
        with self._lock:
            return self._frames.get(id)

    def state(self, *, dropped: int, queue: int) -> SourceState:
        """The state of the source, for the page and the metrics."""
        with self._lock:
            counts = self._counts
            return SourceState(
                name=self.name,
                state=self._state,
                said=self._message,
                frames=counts["frames"],
                passed=counts["pass"],
                rejected=counts["reject"],
                unsure=counts["unsure"],
                dropped=dropped,
                queue=queue,
                drift=self._drift_state(),
                latest=self._latest_state(),
                recent=list(self._recent),
            )

    def _drift_state(self) -> DriftState:
        if self._drift is None:
            n = self.rule.calibration.n
            return DriftState(state="off", said=f"{n} calibration normals: the drift alarm needs {FEWEST} or more")
        report = self._drift.report()
        return DriftState(state="alarm" if report.alarm else "calm", said=report.sentence)

    def _latest_state(self) -> Latest | None:
        if self._latest is None:
            return None
        decision = self._latest.decision
        unsure = self.rule.unsure_threshold
        return Latest(
            id=self._latest.id,
            score=decision.score,
            verdict=decision.verdict,
            threshold=decision.threshold if math.isfinite(decision.threshold) else None,
            unsure_threshold=unsure if math.isfinite(unsure) else None,
            p_value=decision.p_value,
            captured=decision.captured.isoformat() if decision.captured else None,
        )
