"""What sources share: how they hand frames on, and the region of a frame that is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.errors import ImageError
from ahl_runtime.line.queues import PendingFrame
from ahl_runtime.line.sources.settings import Region

Give = Callable[[PendingFrame], bool]  # True: accepted; Busy when the line stops
Report = Callable[[str, str], None]  # a word ("live", "waiting", "gone", "frozen", "ended") and a sentence
Stopped = Callable[[float], bool]  # waits so many seconds, and says whether to end
Lost = Callable[[int], None]  # so many frames came and were overwritten before they could be taken


class Source(Protocol):
    """Something that gives frames. Runs in a thread of its own."""

    def run(self, give: Give, report: Report, stopped: Stopped, lost: Lost) -> None:
        """Until `stopped`."""
        ...


@runtime_checkable
class Triggered(Protocol):
    """A source that gives a frame when it is asked for one."""

    def trigger(self) -> None:
        """Ask for one frame, from any thread. SourceError if it is not triggered so; Busy while its camera is gone."""
        ...


def cropped(image: NDArray[np.uint8], roi: Region | None) -> NDArray[np.uint8]:
    """The region of an image, uint8 [H, W, 3], all of it where there is none. ImageError if it does not fit."""
    if roi is None:
        return image
    height, width = image.shape[:2]
    if roi.x + roi.width > width or roi.y + roi.height > height:
        raise ImageError(
            f"the region {roi.width}x{roi.height} at {roi.x}, {roi.y} does not fit a frame of {width}x{height}: "
            "set roi anew"
        )
    return np.ascontiguousarray(image[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width])
