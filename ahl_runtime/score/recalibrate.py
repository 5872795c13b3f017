"""Propose a new calibration from the line's own normal frames, and show what it would change. Writes no files."""

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
from ahl_runtime.core.types import Frame
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.scoring import Scorer
from calibration import Calibration, FrameStatistics, ScoresError
from calibration.frames import FEWEST

Image = NDArray[np.uint8] | ImageError  # uint8 [H, W, 3], or the reason why there are no pixels


@dataclass(frozen=True, eq=False)
class Proposal:
    """`old`: the active rule. `new`: the calibration that the new frames give. `left_out`: unreadable images.

    `by_old`, `by_new`: the number of new frames for each verdict of the old and the new rule. The new rule was fitted
    to these same frames.
    """

    old: DecisionRule
    new: Calibration
    left_out: tuple[str, ...]
    by_old: Counter[str]
    by_new: Counter[str]


def evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of the paths at even intervals, so that the frames cover a whole shift and not only its first minutes."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i * len(paths) // count] for i in range(count)]


def decoded(paths: Iterable[Path]) -> Generator[Image, None, None]:
    """Decode image files one after another. An ImageError takes the place of a file that cannot be decoded."""
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
    """Score these normal images and fit to their scores. By default alpha and confidence do not change.

    ScoresError for fewer than 2 readable images, or too few for the promise. SettingsError. EngineError, also for a
    score that is NaN or infinite.
    """
    scores: list[float] = []
    statistics: list[FrameStatistics | None] = []
    left_out = []
    for image in images:
        if isinstance(image, ImageError):
            left_out.append(str(image))
            continue
        scores.append(scorer.decide(Frame(image)).score)
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
    """`propose` from the scores of normal frames. `statistics`: those of each frame, None for a frame without any."""
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
