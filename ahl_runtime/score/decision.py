"""From a score to a verdict: thresholds, of the bundle or the device's own, and the calibration's p-value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.device_calibration import SideFile
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.types import Decision, Frame, Score, Verdict
from calibration import Calibration, ScoresError, benjamini_hochberg


@dataclass(frozen=True, eq=False)
class DecisionRule:
    """What decides: thresholds, their promise, the calibration behind them and its name, the bundle's digest."""

    threshold: float
    unsure_threshold: float
    promise: str
    calibration: Calibration
    bundle: str
    name: str = "bundle"

    @classmethod
    def of(cls, bundle: Bundle, artefact: Artefact, side: SideFile | None = None) -> Self:
        """The rule that a bundle carries for one of its artefacts, or `side`'s. BundleError if it is damaged."""
        if side is not None:
            return cls.beside(side, bundle.digest)
        rule = artefact.decision
        return cls(rule.threshold, rule.unsure_threshold, rule.promise, bundle.calibration(artefact), bundle.digest)

    @classmethod
    def beside(cls, side: SideFile, digest: str) -> Self:
        """The rule that the device calibrated itself, for the bundle of this digest."""
        own = side.calibration
        return cls(own.threshold, own.unsure_threshold, own.promise.sentence, own, digest, side.name)

    def for_batch(self, scores: Sequence[float], q: float) -> Self:
        """The rule that rejects what Benjamini-Hochberg rejects of this batch: a share q of it normal, on average.

        The threshold lies at the calibration score under the largest p-value that is rejected, or at +inf.
        SettingsError for a q outside (0, 1); ScoresError if the calibration has too few normals to reject anything.
        """
        n = self.calibration.n
        p_values = self.calibration.p_values(list(scores))
        rejected = p_values[benjamini_hochberg(p_values, q)]
        if q * (n + 1) < 1:
            raise ScoresError(
                f"{n} calibration normals give no p-value below 1/{n + 1}: a false-discovery rate of {q:g} needs "
                f"{math.ceil(1 / q - 1e-9) - 1} or more"
            )
        threshold = math.inf
        if rejected.size:
            as_high = round(float(rejected.max()) * (n + 1)) - 1  # calibration scores at or above the least of them
            threshold = float(self.calibration.scores[n - 1 - as_high])
        promise = (
            f"of the rejected frames at most {100 * q:g}% are normal, on average: Benjamini-Hochberg over a batch of "
            f"{len(scores)}, {rejected.size} rejected, against {n} calibration normals"
        )
        unsure = min(threshold, self.unsure_threshold)
        return replace(self, threshold=threshold, unsure_threshold=unsure, promise=promise)

    def decide(self, score: Score, frame: Frame) -> Decision:
        """`reject` above the threshold, `unsure` above the unsure threshold, else `pass`."""
        return Decision(
            verdict=self.verdict(score.value),
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
            calibration=self.name,
        )

    def again(self, decision: Decision) -> Decision:
        """A decision taken before, by this rule."""
        return replace(decision, verdict=self.verdict(decision.score), threshold=self.threshold, promise=self.promise)

    def verdict(self, score: float) -> Verdict:
        """The word alone."""
        if score > self.threshold:
            return "reject"
        return "unsure" if score > self.unsure_threshold else "pass"
