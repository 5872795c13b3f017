"""A source that gives so many frames of noise, for trying a line out without a camera."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ahl_runtime.core.types import Frame
from ahl_runtime.line.queues import PendingFrame
from ahl_runtime.line.settings import Policy, Seconds
from ahl_runtime.line.sources.base import Give, Lost, Report, Stopped
from ahl_runtime.line.sources.kinds import SourceKind
from ahl_runtime.line.sources.settings import SourceSettings


class NoiseSettings(SourceSettings):
    """`side`: of a frame, in pixels. `count`: of frames. `every`: seconds between them."""

    kind: Literal["noise"]
    policy: Policy = "block"
    side: Annotated[int, Field(ge=1, le=4096)] = 64
    count: Annotated[int, Field(ge=1)] = 10
    every: Seconds = 0.05


class Noise:
    """Grey values drawn evenly from 0 to 255, the same in every run."""

    def __init__(self, settings: NoiseSettings, store: Path) -> None:
        self._settings = settings

    def run(self, give: Give, report: Report, stopped: Stopped, lost: Lost) -> None:
        """Until stopped, or the last frame."""
        settings, random = self._settings, np.random.default_rng(0)
        for i in range(settings.count):
            if stopped(settings.every):
                return
            image = random.integers(0, 256, (settings.side, settings.side, 3), np.uint8)
            frame = Frame(image, str(i), settings.name, datetime.now(UTC))
            give(PendingFrame(frame, settings.name, frame.id))
            report("live", f"frame {i + 1} of {settings.count}")
        report("ended", f"{settings.count} frames")


NOISE = SourceKind(NoiseSettings, Noise, place="count")
