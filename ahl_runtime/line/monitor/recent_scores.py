"""The newest scores of a source and the statistics of their frames: what a calibration from the line is made of."""

from __future__ import annotations

import numpy as np

from calibration import FrameStatistics
from calibration.frames import GRID


class RecentScores:
    """The newest `size`, in memory that is taken and filled at once: what grew for minutes would hide a leak.

    Profiles are held in single precision.
    """

    def __init__(self, size: int) -> None:
        self._size, self._count = size, 0
        self._ids = [""] * size
        self._framed = np.zeros(size, dtype=bool)
        self._numbers = np.full((size, 4), np.nan)  # score, brightness, contrast, sharpness
        self._profiles = np.full((size, 2, GRID), np.nan, dtype=np.float32)

    def clear(self) -> None:
        """Forget them."""
        self._count = 0

    def add(self, id: str, score: float, found: FrameStatistics | None) -> None:
        """A frame's score and its statistics, None where it has none; the oldest goes."""
        at = self._count % self._size
        self._ids[at], self._numbers[at, 0], self._framed[at] = id, score, found is not None
        if found is not None:
            self._numbers[at, 1:] = found.brightness, found.contrast, found.sharpness
            self._profiles[at] = found.profiles
        self._count += 1

    def last(self, most: int) -> list[tuple[str, float, FrameStatistics | None]]:
        """At most so many, the newest last: id, score and statistics."""
        first = self._count - min(most, self._count, self._size)
        return [self._one(i % self._size) for i in range(first, self._count)]

    def _one(self, at: int) -> tuple[str, float, FrameStatistics | None]:
        score, brightness, contrast, sharpness = self._numbers[at].tolist()
        if not self._framed[at]:
            return self._ids[at], score, None
        profiles = self._profiles[at].astype(np.float64)
        return self._ids[at], score, FrameStatistics(brightness, contrast, sharpness, profiles)
