"""From a score to a verdict: the manifest's thresholds and the calibration's p-value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ahl_runtime.bundle import Bundle
from ahl_runtime.manifest import Artefact
from ahl_runtime.types import Decision, Frame, Score, Verdict
from calibration import Calibration


@dataclass(frozen=True, eq=False)
class Rule:
    """What decides: thresholds, their promise, the calibration behind them, the bundle's digest."""

    threshold: float
    unsure_threshold: float
    promise: str
    calibration: Calibration
    bundle: str

    @classmethod
    def of(cls, bundle: Bundle, artefact: Artefact) -> Self:
        """The rule that a bundle carries for one of its artefacts. BundleError if its calibration is damaged."""
        rule = artefact.decision
        return cls(rule.threshold, rule.unsure_threshold, rule.promise, bundle.calibration(artefact), bundle.digest)

    def decide(self, score: Score, frame: Frame) -> Decision:
        """`reject` above the threshold, `unsure` above the unsure threshold, else `pass`."""
        return Decision(
            verdict=self._verdict(score.value),
            score=score.value,
            p_value=float(self.calibration.p_values(score.value)),
            threshold=self.threshold,
            promise=self.promise,
            anomaly_map=score.anomaly_map,
            head_scores=score.head_scores,
            frame=frame.id,
            source=frame.source,
            captured=frame.captured,
            bundle=self.bundle,
        )

    def _verdict(self, score: float) -> Verdict:
        if score > self.threshold:
            return "reject"
        return "unsure" if score > self.unsure_threshold else "pass"
