"""Fit thresholds and their promise to the scores of normal frames. Start with `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import IO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration import checks, rank, storage
from calibration.checks import FloatArray
from calibration.errors import SettingsError
from calibration.frames import FrameReference, FrameStatistics, frame_reference
from calibration.promise import Promise, conformal_promise, cross_promise, tail_promise
from calibration.tail import fit_tail


@dataclass(frozen=True, eq=False)
class Calibration:
    """Thresholds fitted to the scores of held-out normal frames, and their promise.

    `scores`: float64 [n], ascending, read-only. A score above `threshold` is rejected. A score above `unsure_threshold`
    and at most `threshold` is unsure. `unsure_threshold <= threshold`. `threshold` is +inf if n is too small for alpha.
    `subject`: the origin of the scores, such as a bundle's digest, "" if unknown. `frames`: the frame statistics of
    normals, for the drift alarm. `folds`: the sizes of the folds for out-of-fold scores (conformal.fit_cross), else ().
    """

    scores: FloatArray
    threshold: float
    unsure_threshold: float
    unsure_alpha: float
    promise: Promise
    subject: str = ""
    frames: FrameReference | None = None
    folds: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """The number of calibration normals."""
        return int(self.scores.size)

    @property
    def alpha(self) -> float:
        """The target false-reject rate."""
        return self.promise.alpha

    @property
    def confidence(self) -> float:
        """The requested confidence of the promise."""
        return self.promise.confidence

    def p_values(self, scores: ArrayLike) -> FloatArray:
        """Conformal p-values, float64 of the scores' shape: (1 + #{calibration scores >= s}) / (n + 1).

        For a new normal, P(p <= t) <= t for every t (Vovk, Gammerman & Shafer 2005). ScoresError on NaN or
        infinity.
        """
        s = checks.finite("scores", scores)
        at_least = self.n - np.searchsorted(self.scores, s, side="left")
        return np.asarray((1.0 + at_least) / (self.n + 1.0), dtype=np.float64)

    def decide(self, scores: ArrayLike) -> NDArray[np.str_]:
        """The verdicts "pass", "unsure", "reject", of the scores' shape. ScoresError on NaN or infinity."""
        s = checks.finite("scores", scores)
        words = np.where(s > self.unsure_threshold, "unsure", "pass")
        return np.asarray(np.where(s > self.threshold, "reject", words), dtype=np.str_)

    def at(
        self,
        alpha: float,
        confidence: float | None = None,
        *,
        unsure_alpha: float | None = None,
        tail: bool = False,
    ) -> Calibration:
        """Calibrate again from the same scores with another alpha. By default the confidence does not change."""
        confidence = self.confidence if confidence is None else confidence
        rates = checked_rates(alpha, confidence, unsure_alpha)
        again = calibrate(self.scores, *rates, tail=tail, subject=self.subject, folds=self.folds)
        return replace(again, frames=self.frames)

    def with_frames(self, frames: Sequence[FrameStatistics]) -> Calibration:
        """This calibration plus the statistics of n >= 30 normal frames for the drift alarm. ScoresError."""
        return replace(self, frames=frame_reference(frames))

    def save(self, target: str | PathLike[str] | IO[bytes]) -> None:
        """Write one npz (no pickle) to a path, whole or not at all, or into an open binary file."""
        arrays = {"scores": self.scores, "thresholds": np.array([self.threshold, self.unsure_threshold])}
        if self.frames is not None:
            arrays |= {"frame_template": self.frames.template, "frame_values": self.frames.values}
        storage.write(
            target,
            arrays,
            {"unsure_alpha": self.unsure_alpha, "subject": self.subject, "folds": list(self.folds)},
            self.promise,
        )

    @classmethod
    def load(cls, source: str | PathLike[str] | IO[bytes], *, subject: str | None = None) -> Calibration:
        """Read a file that `save` wrote, from a path or a seekable binary file.

        CalibrationFileError for a file that is missing, damaged or not a calibration. CalibrationFileError also for a
        calibration of another subject, if `subject` is given.
        """
        arrays, meta, promise = storage.read(source)
        stored = str(meta["subject"])
        if subject is not None and stored != subject:
            raise storage.refuse(
                source, f"it belongs to {stored or 'no named subject'}, not to {subject}: calibrate again"
            )
        scores = arrays["scores"]
        scores.flags.writeable = False
        threshold, unsure = (float(v) for v in arrays["thresholds"])
        frames = None
        if "frame_values" in arrays:
            frames = FrameReference(arrays["frame_template"], arrays["frame_values"])
        folds = tuple(meta["folds"])
        return cls(scores, threshold, unsure, float(meta["unsure_alpha"]), promise, stored, frames, folds)


def default_unsure_alpha(alpha: float) -> float:
    """Five times alpha, but at most halfway between alpha and 1. For example 0.05 for 0.01."""
    return min(5.0 * alpha, (1.0 + alpha) / 2.0)


def fit(
    normal_scores: ArrayLike,
    alpha: float = 0.01,
    confidence: float = 0.95,
    *,
    unsure_alpha: float | None = None,
    tail: bool = False,
    subject: str = "",
) -> Calibration:
    """Thresholds from the scores of n normal frames that the detector never saw (split conformal).

    `normal_scores`: real numbers [n], n >= 2. A higher score is more anomalous. `alpha`: the share of normal frames
    that may be rejected. `confidence`: the confidence level of this promise. The threshold is the (n - k)-th smallest
    score for the largest k with P(Beta(k + 1, n - k) <= alpha) >= confidence. If there is no such k, it is the largest
    score if 1 / (n + 1) <= alpha. Otherwise it is +inf, and nothing is rejected. k depends on n, alpha and confidence,
    never on the scores. `unsure_alpha` (default five times alpha): the share of normal frames that may be unsure or
    rejected, on average. Its threshold is the split-conformal quantile, or the largest score if n is too small.
    `tail`: take a threshold that would be +inf from a generalised Pareto tail instead (tail.py). That is a model, not a
    guarantee, and needs n >= 20. ScoresError, SettingsError. Vovk (2012), Conditional validity of inductive conformal
    predictors.
    """
    rates = checked_rates(alpha, confidence, unsure_alpha)
    return calibrate(checks.sample("normal scores", normal_scores), *rates, tail=tail, subject=subject)


def calibrate(
    scores: FloatArray,
    alpha: float,
    confidence: float,
    unsure_alpha: float,
    *,
    tail: bool = False,
    subject: str = "",
    folds: tuple[int, ...] = (),
) -> Calibration:
    """`fit` without its checks. `scores`: float64 [n] in ascending order, n >= 2. They become read-only."""
    n = int(scores.size)
    k = rank.chosen_rank(n, alpha, confidence)
    if k is None and tail:
        model = fit_tail(scores, alpha, confidence)
        threshold, promise = model.threshold, tail_promise(model, confidence)
    else:
        threshold = float("inf") if k is None else float(scores[n - 1 - k])
        tied = bool(np.count_nonzero(scores == threshold) > 1)
        promise = conformal_promise(n, k, alpha, confidence, tied=tied, constant=scores[0] == scores[-1])
    k_unsure = rank.mean_rank(n, unsure_alpha)
    unsure = min(threshold, float(scores[n - 1 - min(k_unsure or 0, n - 1)]))
    scores.flags.writeable = False
    if folds:
        promise = cross_promise(promise, folds)
    return Calibration(scores, threshold, unsure, unsure_alpha, promise, checks.text("subject", subject), None, folds)


def checked_rates(alpha: float, confidence: float, unsure_alpha: float | None) -> tuple[float, float, float]:
    """alpha, confidence and unsure_alpha, checked. None gives the default of unsure_alpha. SettingsError."""
    alpha, confidence = checks.rate("alpha", alpha), checks.rate("confidence", confidence)
    if unsure_alpha is None:
        return alpha, confidence, default_unsure_alpha(alpha)
    unsure_alpha = checks.rate("unsure_alpha", unsure_alpha)
    if unsure_alpha < alpha:
        raise SettingsError(f"unsure_alpha is {unsure_alpha:g}, below alpha {alpha:g}: expected alpha or more")
    return alpha, confidence, unsure_alpha
