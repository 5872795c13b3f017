"""Checks of a new bundle: a shadow run before its activation, and a probation after it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

from ahl_runtime.core.types import Decision, Frame, stacked
from ahl_runtime.line.active.loaded import ActiveModel, LoadedBundle
from ahl_runtime.score.decision import DecisionRule

_DOUBT = 1e-3  # a reject count less probable than this fails the check


class ShadowRun:
    """`fresh` scores `frames` frames of the active bundle. `refusal`: why it must not be activated, or ''.

    `rules`: the decision rules of `fresh`, by source. `over`: set when the run has its result.
    """

    def __init__(self, fresh: LoadedBundle, rules: Mapping[str, DecisionRule], frames: int) -> None:
        self.refusal = ""
        self.over = threading.Event()
        self._fresh, self._rules = fresh, rules
        self._frames, self._seen = frames, 0
        self._passed: dict[float, int] = {}  # by alpha: frames that the active bundle did not reject
        self._rejected: dict[float, int] = {}

    def see(self, frames: list[Frame], decisions: list[Decision]) -> None:
        """Score the frames of a batch that the active bundle decided. Called in the scoring thread."""
        if self.over.is_set():
            return
        try:
            outputs = self._fresh.infer(stacked(frames))
            for i, (frame, old) in enumerate(zip(frames, decisions, strict=True)):
                rule = self._rules[frame.source]
                new = rule.decide(outputs.of(i), frame)
                if old.verdict != "reject":
                    alpha = rule.calibration.alpha
                    self._passed[alpha] = self._passed.get(alpha, 0) + 1
                    self._rejected[alpha] = self._rejected.get(alpha, 0) + (new.verdict == "reject")
        except Exception as error:  # any error is a reason to refuse the bundle
            self.refusal = f"it fails on a frame ({type(error).__name__}: {error})"
            self.over.set()
            return
        self._seen += len(frames)
        for alpha, n in self._passed.items():
            if tail(self._rejected[alpha], n, alpha) < _DOUBT:
                self.refusal = f"it rejects {self._rejected[alpha]} of {n} frames that pass now, at alpha {alpha:g}"
                self.over.set()
        if self._seen >= self._frames:
            self.over.set()


class Probation:
    """The first `frames` frames of a `fresh` bundle. `proven`: the model to roll back to if the bundle fails.

    `expected`: the share of frames that the bundle may reject.
    """

    def __init__(self, proven: ActiveModel, fresh: LoadedBundle, frames: int, expected: float) -> None:
        self.proven, self.fresh = proven, fresh
        self._frames, self._expected = frames, min(max(expected, 0.0), 1.0)
        self._seen = self._rejected = 0

    def see(self, decisions: list[Decision] | None) -> str:
        """Take decisions, None if the engine failed; returns the reason to roll back, or ''."""
        if decisions is None:
            return "its engine failed on a frame"
        self._seen += len(decisions)
        self._rejected += sum(d.verdict == "reject" for d in decisions)
        if tail(self._rejected, self._seen, self._expected) < _DOUBT:
            return f"it rejected {self._rejected} of its first {self._seen} frames"
        return ""

    @property
    def over(self) -> bool:
        """True if the bundle has passed its probation."""
        return self._seen >= self._frames


def tail(k: int, n: int, p: float) -> float:
    """The binomial probability of k or more successes in n trials, each with probability p."""
    if k <= 0 or p >= 1.0:
        return 1.0
    if p <= 0.0:
        return 0.0
    return sum(math.exp(_log_choose(n, i) + i * math.log(p) + (n - i) * math.log1p(-p)) for i in range(k, n + 1))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
