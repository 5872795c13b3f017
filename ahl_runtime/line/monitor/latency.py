"""How long the stages of a line take: one Prometheus histogram for each line, in no global registry."""

from __future__ import annotations

from prometheus_client import Histogram

STAGES = ("wait", "score", "store", "total")
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class StageLatencies:
    """`wait`: accepted until taken; `score`; `store`: until on the disk; `total`. For any thread.

    `histogram`: `ahl_stage_seconds`, labelled with the stage.
    """

    def __init__(self) -> None:
        self.histogram = Histogram(
            "ahl_stage_seconds", "How long a frame took in a stage", ["stage"], buckets=_BOUNDS, registry=None
        )
        self._stages = {stage: self.histogram.labels(stage) for stage in STAGES}

    def add(self, stage: str, seconds: float) -> None:
        """Count a frame that took this long."""
        self._stages[stage].observe(seconds)
