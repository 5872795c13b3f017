"""Read a ring of frames in shared memory: each frame once, in order. Overwritten frames are counted as lost."""

from __future__ import annotations

import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.errors import ImageError, SourceError
from ahl_runtime.line.settings import Seconds
from ahl_runtime.line.sources.base import Lost, Report, Stopped
from ahl_runtime.line.sources.kinds import SourceKind
from ahl_runtime.line.sources.live import CapturedFrame, Live
from ahl_runtime.line.sources.ring_memory import Reader, Taken
from ahl_runtime.line.sources.settings import StreamSettings


class RingSource(StreamSettings):
    """A ring that a process of this computer writes (`ring_memory`). `every`: seconds between polls."""

    kind: Literal["ring"]
    path: Path
    every: Seconds = 0.002


class Ring(Live):
    """Reads a ring and follows its replacement.

    If the ring exists when the line starts, its old frames are skipped: the line may have scored them before a restart.
    All frames of a later ring are read.
    """

    _settings: RingSource

    def __init__(self, settings: RingSource) -> None:
        super().__init__(settings)
        self._id: int | None = None
        self._next_number = 1

    def _captured(self, report: Report, stopped: Stopped, lost: Lost) -> Generator[CapturedFrame, None, None]:
        since = time.monotonic()
        while not stopped(0.0):
            with self._opened() as reader:
                while not stopped(0.0):
                    newest = reader.written()
                    if newest >= self._next_number:
                        yield from self._taken(reader, newest, lost)
                        since = time.monotonic()
                        continue
                    if newest < self._next_number - 1:
                        raise SourceError(f"{self._settings.path}: its frame count went back: make a new ring")
                    if reader.replaced() and reader.written() == newest:
                        break
                    if time.monotonic() - since > self._settings.stall:
                        raise SourceError(f"no frame for {self._settings.stall:g} s: does the grabber run?")
                    stopped(self._settings.every)

    def _opened(self) -> Reader:
        try:
            reader = Reader(self._settings.path)
        except SourceError:
            self._id = self._id or 0  # no ring yet: all frames of a later ring are new
            raise
        if reader.id != self._id:
            self._next_number = reader.written() + 1 if self._id is None else 1
            self._id = reader.id
        return reader

    def _taken(self, reader: Reader, newest: int, lost: Lost) -> Generator[CapturedFrame, None, None]:
        oldest = max(1, newest - reader.slots + 1)
        if oldest > self._next_number:
            lost(oldest - self._next_number)
            self._next_number = oldest
        number, self._next_number = self._next_number, self._next_number + 1
        try:
            taken = reader.take(number)
        except ImageError as error:
            yield _damaged(str(error))
            return
        if taken is None:
            lost(1)
        else:
            yield _captured_frame(taken)


def _captured_frame(taken: Taken) -> CapturedFrame:
    """A frame of the ring as RGB; a grey frame is repeated in three channels."""
    image: NDArray[np.uint8] = taken.image
    if image.ndim == 2:
        image = np.repeat(image[..., np.newaxis], 3, axis=2)
    try:
        captured = datetime.fromtimestamp(taken.captured_ns / 1e9, UTC) if taken.captured_ns else datetime.now(UTC)
    except (ValueError, OverflowError, OSError):  # the time is outside the calendar
        captured = datetime.now(UTC)
    return CapturedFrame(lambda: image, captured)


def _damaged(why: str) -> CapturedFrame:
    def refuse() -> NDArray[np.uint8]:
        raise ImageError(why)

    return CapturedFrame(refuse, datetime.now(UTC))


RING = SourceKind(RingSource, lambda settings, store: Ring(settings), "path")
