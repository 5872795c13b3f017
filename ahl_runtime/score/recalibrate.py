"""A new calibration from the line's own normals, and what it would change. Nothing is written here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import calibration
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import ImageError
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.scoring import Scorer
from calibration import Calibration, FrameStatistics, ScoresError
from calibration.frames import FEWEST

Image = NDArray[np.uint8] | ImageError  # uint8 [H, W, 3], or why there are no pixels


@dataclass(frozen=True, eq=False)
class Proposal:
    """`old`: the rule in force. `new`: the calibration that the frames give. `left_out`: unreadable images.

    `by_old`, `by_new`: what each makes of the new frames, counted by verdict; the new one was fitted to just these.
    """

    old: DecisionRule
    new: Calibration
    left_out: tuple[str, ...]
    by_old: Counter[str]
    by_new: Counter[str]


def evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of the paths, spread evenly over them, so that a whole shift calibrates and not its first minutes."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i * len(paths) // count] for i in range(count)]


def decoded(paths: Iterable[Path]) -> Generator[Image, None, None]:
    """Image files, one after another."""
    for path in paths:
        try:
            yield decode(path)
        except ImageError as error:
            yield error


def propose(
    scorer: Scorer,
    images: Iterable[Image],
    *,
    alpha: float | None = None,
    confidence: float | None = None,
    tail: bool = False,
) -> Proposal:
    """Fit to the scores of these normal images; alpha and confidence are kept unless given.

    ScoresError for fewer than 2 images that can be read, or too few for the promise; SettingsError; EngineError,
    also for a score that is NaN or infinite.
    """
    scores: list[float] = []
    statistics: list[FrameStatistics | None] = []
    left_out = []
    for image in images:
        if isinstance(image, ImageError):
            left_out.append(str(image))
            continue
        scores.append(scorer.score(image).score)
        statistics.append(calibration.frame_statistics(image) if min(image.shape[:2]) >= 8 else None)
    fitted = fit(scorer.rule, scores, statistics, alpha=alpha, confidence=confidence, tail=tail)
    return replace(fitted, left_out=tuple(left_out))


def fit(
    old: DecisionRule,
    scores: Sequence[float],
    statistics: Sequence[FrameStatistics | None],
    *,
    alpha: float | None = None,
    confidence: float | None = None,
    tail: bool = False,
) -> Proposal:
    """The same from normal frames that were scored already, each with its statistics where it has some."""
    new = calibration.fit(
        list(scores),
        old.calibration.alpha if alpha is None else alpha,
        old.calibration.confidence if confidence is None else confidence,
        unsure_alpha=old.calibration.unsure_alpha if alpha is None else None,
        tail=tail,
    )
    if new.promise.kind == "none":
        raise ScoresError(f"{new.promise.sentence}: give more normal frames, a larger --alpha, or --tail")
    watched = [s for s in statistics if s is not None]
    if len(watched) == len(scores) >= FEWEST:
        new = new.with_frames(watched)
    by_new = Counter(str(word) for word in new.decide(list(scores)))
    return Proposal(old, new, (), Counter(old.verdict(s) for s in scores), by_new)
