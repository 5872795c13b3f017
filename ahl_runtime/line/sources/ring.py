"""A ring of frames in shared memory: each taken once, in order, those that were overwritten counted."""

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
    """Shared memory that a process of this computer writes (`ring_memory`). `every`: seconds between looks."""

    kind: Literal["ring"]
    path: Path
    every: Seconds = 0.002


class Ring(Live):
    """Of a ring that was there before the line, what is written from then on: the rest may have been decided on before
    a restart. Of one that comes later, every frame.
    """

    def __init__(self, part: RingSource) -> None:
        super().__init__(part)
        self._part = part
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
                        raise SourceError(f"{self._part.path}: its count went back: make a new ring, and rename it")
                    if reader.replaced() and reader.written() == newest:
                        break
                    if time.monotonic() - since > self._part.stall:
                        raise SourceError(f"no frame for {self._part.stall:g} s: does the grabber run?")
                    stopped(self._part.every)

    def _opened(self) -> Reader:
        try:
            reader = Reader(self._part.path)
        except SourceError:
            self._id = self._id or 0  # none yet: all frames of one that comes are new
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
            yield _shot(taken)


def _shot(taken: Taken) -> CapturedFrame:
    """Grey frames are made RGB."""
    image: NDArray[np.uint8] = taken.image
    if image.ndim == 2:
        image = np.repeat(image[..., np.newaxis], 3, axis=2)
    try:
        captured = datetime.fromtimestamp(taken.captured_ns / 1e9, UTC) if taken.captured_ns else datetime.now(UTC)
    except (ValueError, OverflowError, OSError):  # a time that no calendar has
        captured = datetime.now(UTC)
    return CapturedFrame(lambda: image, captured)


def _damaged(why: str) -> CapturedFrame:
    def refuse() -> NDArray[np.uint8]:
        raise ImageError(why)

    return CapturedFrame(refuse, datetime.now(UTC))


RING = SourceKind(RingSource, lambda part, store: Ring(part), "path")
