"""The newest scores of a source and the statistics of their frames: the data for a calibration from the line."""

from __future__ import annotations

import numpy as np

from calibration import FrameStatistics
from calibration.frames import GRID


class RecentScores:
    """The newest `size` scores. All memory is allocated and filled at the start, so that growth later means a leak.

    Profiles are stored as float32.
    """

    def __init__(self, size: int) -> None:
        self._size, self._count = size, 0
        self._ids = [""] * size
        self._framed = np.zeros(size, dtype=bool)
        self._numbers = np.full((size, 4), np.nan)  # score, brightness, contrast, sharpness
        self._profiles = np.full((size, 2, GRID), np.nan, dtype=np.float32)

    def clear(self) -> None:
        """Remove all scores."""
        self._count = 0

    def add(self, id: str, score: float, found: FrameStatistics | None) -> None:
        """Add a frame's score and its statistics (None: no statistics); replaces the oldest."""
        at = self._count % self._size
        self._ids[at], self._numbers[at, 0], self._framed[at] = id, score, found is not None
        if found is not None:
            self._numbers[at, 1:] = found.brightness, found.contrast, found.sharpness
            self._profiles[at] = found.profiles
        self._count += 1

    def last(self, most: int) -> list[tuple[str, float, FrameStatistics | None]]:
        """Id, score and statistics of at most `most` frames, the newest last."""
        first = self._count - min(most, self._count, self._size)
        return [self._one(i % self._size) for i in range(first, self._count)]

    def _one(self, at: int) -> tuple[str, float, FrameStatistics | None]:
        score, brightness, contrast, sharpness = self._numbers[at].tolist()
        if not self._framed[at]:
            return self._ids[at], score, None
        profiles = self._profiles[at].astype(np.float64)
        return self._ids[at], score, FrameStatistics(brightness, contrast, sharpness, profiles)
