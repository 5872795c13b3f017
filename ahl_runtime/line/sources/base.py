"""The interface of sources, and the cropping of a frame to its region."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.errors import ImageError
from ahl_runtime.line.queues import PendingFrame
from ahl_runtime.line.sources.settings import Region

Give = Callable[[PendingFrame], bool]  # True: accepted; Busy when the line stops
Report = Callable[[str, str], None]  # a state ("live", "waiting", "gone", "frozen", "ended") and a sentence
Stopped = Callable[[float], bool]  # waits for the given seconds; True: end now
Lost = Callable[[int], None]  # the number of frames that were overwritten before the source read them


class Source(Protocol):
    """Gives frames to the line, in its own thread."""

    def run(self, give: Give, report: Report, stopped: Stopped, lost: Lost) -> None:
        """Give frames until `stopped`."""
        ...


@runtime_checkable
class Triggered(Protocol):
    """A source with a software trigger."""

    def trigger(self) -> None:
        """Trigger one frame, from any thread. SourceError: no software trigger. Busy: the camera is disconnected."""
        ...


def cropped(image: NDArray[np.uint8], roi: Region | None) -> NDArray[np.uint8]:
    """Crop an image, uint8 [H, W, 3], to a region; None: the whole image. ImageError if the region does not fit."""
    if roi is None:
        return image
    height, width = image.shape[:2]
    if roi.x + roi.width > width or roi.y + roi.height > height:
        raise ImageError(
            f"the region {roi.width}x{roi.height} at {roi.x}, {roi.y} does not fit a frame of {width}x{height}: "
            "change roi"
        )
    return np.ascontiguousarray(image[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width])
