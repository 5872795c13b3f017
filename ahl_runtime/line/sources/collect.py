"""Collect a number of frames from one source without a line, then close the source."""

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
_ABSENT = 10.0  # seconds for the first frame of a source that says why it has none
_PROGRESS = 5.0  # seconds between progress messages


def collect(
    settings: SourceSettings, most: int, every: float, progress: Callable[[str], None]
) -> Generator[NDArray[np.uint8] | ImageError, None, None]:
    """Yield at most `most` frames, uint8 [H, W, 3], at least `every` seconds apart; an ImageError for a damaged one.

    Ends early if the source ends, such as a video. `progress`: called with a progress message every 5 seconds.
    SourceError for a source that gives no frame for a minute, for one that cannot be opened for 10 seconds, and for
    push and folder sources.
    """
    source = None if isinstance(settings, FolderSource) else open_source(settings, Path())
    if source is None:
        raise SourceError(f"source {settings.name} is of the kind {settings.kind}: give a folder of its frames")
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

    def report(word: str, message: str) -> None:
        state[:] = [word, message]

    thread = threading.Thread(
        target=source.run, args=(give, report, stop.wait, lambda count: None), name="collect", daemon=True
    )
    thread.start()
    try:
        count, received, reported = 0, time.monotonic(), time.monotonic()
        while count < most:
            try:
                pending = frames.get(timeout=0.2)
            except Empty:
                if (state[0] == "ended" or not thread.is_alive()) and frames.empty():
                    return
                patience = _ABSENT if count == 0 and state[0] == "gone" else _PATIENCE + every
                if time.monotonic() - received > patience:
                    why = state[1].partition("; next attempt")[0]
                    raise SourceError(
                        f"{settings.name}: no frame for {patience:g} s: {why}: check that it is there and not in use"
                    ) from None
                continue
            count, received = count + 1, time.monotonic()
            if received - reported > _PROGRESS:
                reported = received
                progress(f"{count} of {most} frames")
            yield pending.frame.image if pending.frame else ImageError(f"frame {pending.name}: {pending.error}")
    finally:
        stop.set()
        thread.join(5.0)
