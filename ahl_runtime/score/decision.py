"""From a score to a verdict: the thresholds of the bundle or of this device, and the p-value of the calibration."""

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
    """The thresholds, their promise, their calibration and its name (`name`), and the digest of the bundle."""

    threshold: float
    unsure_threshold: float
    promise: str
    calibration: Calibration
    bundle: str
    name: str = "bundle"

    @classmethod
    def of(cls, bundle: Bundle, artefact: Artefact, side: SideFile | None = None) -> Self:
        """The rule of `side` if it is given, else the bundle's rule for the artefact. BundleError if it is damaged."""
        if side is not None:
            return cls.of_device(side, bundle.digest)
        rule = artefact.decision
        return cls(rule.threshold, rule.unsure_threshold, rule.promise, bundle.calibration(artefact), bundle.digest)

    @classmethod
    def of_device(cls, side: SideFile, digest: str) -> Self:
        """The rule of a calibration that was made on this device, for the bundle of this digest."""
        own = side.calibration
        return cls(own.threshold, own.unsure_threshold, own.promise.sentence, own, digest, side.name)

    def for_batch(self, scores: Sequence[float], q: float) -> Self:
        """The rule that rejects what Benjamini-Hochberg rejects in this batch.

        On average, at most the share q of the rejected frames is normal. The threshold is the largest calibration score
        below the lowest rejected score, or +inf if nothing is rejected. SettingsError for a q outside (0, 1).
        ScoresError if the calibration has too few normals to reject anything.
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
            as_high = round(float(rejected.max()) * (n + 1)) - 1  # calibration scores >= the lowest rejected score
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

    def decide_again(self, decision: Decision) -> Decision:
        """An earlier decision, made again by this rule."""
        return replace(decision, verdict=self.verdict(decision.score), threshold=self.threshold, promise=self.promise)

    def verdict(self, score: float) -> Verdict:
        """The verdict on a score, without the rest of the decision."""
        if score > self.threshold:
            return "reject"
        return "unsure" if score > self.unsure_threshold else "pass"
