"""Frames of one source without a line: as many as are asked for, then it is closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from queue import Empty, Full, Queue

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.errors import ImageError, SourceError
from ahl_runtime.line.queues import PendingFrame
from ahl_runtime.line.sources.folder import FolderSource
from ahl_runtime.line.sources.open import open_source
from ahl_runtime.line.sources.settings import SourceSettings

_PATIENCE = 60.0  # seconds without a frame
_TOLD = 5.0  # seconds between words on how far it is


def collect(
    part: SourceSettings, most: int, every: float, told: Callable[[str], None]
) -> Generator[NDArray[np.uint8] | ImageError, None, None]:
    """At most so many frames, uint8 [H, W, 3], at least `every` seconds apart; an ImageError for a damaged one.

    Fewer where the source ends, such as a video. `told`: how far it is, now and then. SourceError for a source that
    gives nothing for a minute, or whose frames cannot be asked for.
    """
    source = None if isinstance(part, FolderSource) else open_source(part, Path())
    if source is None:
        raise SourceError(f"source {part.name} is of the kind {part.kind}: give a folder of its frames")
    frames: Queue[PendingFrame] = Queue(1)
    stop, state = threading.Event(), ["waiting", "no frame yet"]
    taken = float("-inf")

    def give(pending: PendingFrame) -> bool:
        nonlocal taken
        if time.monotonic() - taken < every:
            return True
        taken = time.monotonic()
        while not stop.is_set():
            try:
                frames.put(pending, timeout=0.2)
                return True
            except Full:
                continue
        return False

    def report(word: str, said: str) -> None:
        state[:] = [word, said]

    thread = threading.Thread(
        target=source.run, args=(give, report, stop.wait, lambda count: None), name="collect", daemon=True
    )
    thread.start()
    try:
        count, heard, said = 0, time.monotonic(), time.monotonic()
        while count < most:
            try:
                pending = frames.get(timeout=0.2)
            except Empty:
                if (state[0] == "ended" or not thread.is_alive()) and frames.empty():
                    return
                if time.monotonic() - heard > _PATIENCE + every:
                    raise SourceError(f"{part.name}: no frame for {_PATIENCE + every:g} s: {state[1]}") from None
                continue
            count, heard = count + 1, time.monotonic()
            if heard - said > _TOLD:
                said = heard
                told(f"{count} of {most} frames")
            yield pending.frame.image if pending.frame else ImageError(f"frame {pending.name}: {pending.error}")
    finally:
        stop.set()
        thread.join(5.0)
