"""The base of cameras and streams: it reconnects after failures, limits the frame rate and detects frozen cameras."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.backoff import Backoff
from ahl_runtime.core.errors import ImageError, RuntimeFault, SourceError
from ahl_runtime.core.types import Frame
from ahl_runtime.line.queues import PendingFrame
from ahl_runtime.line.sources.base import Give, Lost, Report, Stopped, cropped
from ahl_runtime.line.sources.settings import StreamSettings


@dataclass(frozen=True, eq=False)
class CapturedFrame:
    """A captured frame. `pixels`: makes the image, uint8 [H, W, 3] RGB, on request; ImageError if it is damaged."""

    pixels: Callable[[], NDArray[np.uint8]]
    captured: datetime


class Live(ABC):
    """A live source. A subclass implements one connection, `_captured`.

    `crops`: True: this class crops frames to the region; False: the device sends only the region.
    """

    crops = True

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._count = 0
        self._last: NDArray[np.uint8] | None = None
        self._equal = 0
        self._next = float("-inf")

    @abstractmethod
    def _captured(self, report: Report, stopped: Stopped, lost: Lost) -> Generator[CapturedFrame, None, None]:
        """Yield the frames of one connection; closing the generator closes the connection.

        May raise SourceError or any error of a library. It must raise if no frame comes for `stall` seconds.
        """

    def _ended(self) -> str:
        """The message when the source has ended for good; '': reconnect after the last frame."""
        return ""

    def _hidden(self, reason: str) -> str:
        """The reason of a failure without secrets."""
        return reason

    def run(self, give: Give, report: Report, stopped: Stopped, lost: Lost) -> None:
        """Give frames until stopped, or until the source ends."""
        settings = self._settings
        backoff = Backoff(settings.retry, settings.retry_most)
        while not stopped(0.0):
            before = self._count
            try:
                with closing(self._captured(report, stopped, lost)) as captured_frames:
                    for captured_frame in captured_frames:
                        if stopped(0.0):
                            return
                        self._hand_on(captured_frame, give, report)
                if ended := self._ended():
                    report("ended", ended)
                    return
                reason = "the stream ended"
            except RuntimeFault as error:
                reason = str(error)
            except Exception as error:  # FFmpeg's errors, and errors from damaged streams
                file = getattr(error, "filename", None)
                reason = f"{file}: " if file else ""
                reason += f"{getattr(error, 'strerror', None) or error} ({type(error).__name__})"
            if stopped(0.0):
                return
            if self._count > before:
                backoff.reset()
            pause = backoff.next()
            report("frozen" if self._frozen else "gone", f"{self._hidden(reason)}; next attempt in {pause:g} s")
            stopped(pause)

    def _hand_on(self, captured_frame: CapturedFrame, give: Give, report: Report) -> None:
        settings, now = self._settings, time.monotonic()
        if settings.max_fps is not None:
            if now < self._next:
                return
            self._next = max(self._next, now - 1 / settings.max_fps) + 1 / settings.max_fps
        self._count += 1
        name = str(self._count)
        try:
            image = captured_frame.pixels()
        except ImageError as error:
            give(PendingFrame(None, settings.name, name, str(error)))
            return
        self._equal = self._equal + 1 if self._last is not None and np.array_equal(image, self._last) else 0
        self._last = image
        if self._frozen:
            raise SourceError(f"the same frame came {self._equal + 1} times: the camera is frozen")
        try:
            seen = cropped(image, settings.roi if self.crops else None)
            pending = PendingFrame(Frame(seen, name, settings.name, captured_frame.captured), settings.name, name)
        except ImageError as error:
            pending = PendingFrame(None, settings.name, name, str(error))
        if give(pending):
            report("live", f"frame {self._count} of {image.shape[1]}x{image.shape[0]}")

    @property
    def _frozen(self) -> bool:
        return bool(self._settings.frozen) and self._equal + 1 >= self._settings.frozen > 1
