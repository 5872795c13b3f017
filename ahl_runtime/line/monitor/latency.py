"""The duration of a line's stages: one Prometheus histogram for each line, outside the global registry."""

from __future__ import annotations

from prometheus_client import Histogram

STAGES = ("wait", "score", "store", "total")
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class StageLatencies:
    """Seconds by stage. `wait`: in the queue; `score`: in the engine; `store`: until on the disk; `total`. Thread-safe.

    `histogram`: the metric `ahl_stage_seconds`, with the label `stage`.
    """

    def __init__(self) -> None:
        self.histogram = Histogram(
            "ahl_stage_seconds", "How long a frame took in a stage", ["stage"], buckets=_BOUNDS, registry=None
        )
        self._stages = {stage: self.histogram.labels(stage) for stage in STAGES}

    def add(self, stage: str, seconds: float) -> None:
        """Add the duration of a stage for one frame."""
        self._stages[stage].observe(seconds)
