"""How long the stages take, counted in buckets."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

STAGES = ("wait", "score", "store", "total")
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Latency:
    """How long a stage took. `bounds`: upper ends in seconds; `counts`: of each bucket alone, one more than bounds."""

    bounds: Sequence[float]
    counts: Sequence[int]
    seconds: float


class StageLatencies:
    """`wait`: accepted until taken; `score`; `store`: until on the disk; `total`. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {stage: [0] * (len(_BOUNDS) + 1) for stage in STAGES}
        self._seconds = dict.fromkeys(STAGES, 0.0)

    def add(self, stage: str, seconds: float) -> None:
        """A frame took so long."""
        with self._lock:
            self._counts[stage][bisect_left(_BOUNDS, seconds)] += 1
            self._seconds[stage] += seconds

    def latencies(self) -> dict[str, Latency]:
        """A copy."""
        with self._lock:
            return {s: Latency(_BOUNDS, tuple(self._counts[s]), self._seconds[s]) for s in STAGES}
