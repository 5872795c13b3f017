"""Image retention: keep rejects and a sample of the others; delete the oldest, by age and by total bytes."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from datetime import UTC, datetime

import numpy as np

from ahl_runtime.core.decode import suffix_of
from ahl_runtime.core.encode import png
from ahl_runtime.core.files import write_whole
from ahl_runtime.core.types import Decision
from ahl_runtime.line.queues import PendingFrame
from ahl_runtime.line.settings import StoreSettings


class Images:
    """The folder of kept images, with a folder for each day (UTC)."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self.folder = settings.images

    def wanted(self, decision: Decision) -> bool:
        """True if the image of this decision must be kept; other images are sampled at random."""
        if self._settings.keep_rejects and decision.verdict != "pass":
            return True
        return random.random() < self._settings.keep_passes

    def keep(self, id: str, pending: PendingFrame) -> tuple[str, str]:
        """Write a frame's file unchanged, or its pixels as PNG; returns the absolute path and the SHA-256. OSError.

        Both are lossless, so that marked images can be used for training.
        """
        suffix = pending.path.suffix.lower() if pending.path else suffix_of(pending.body) if pending.body else ".png"
        body = pending.body or png(pending.frame.image if pending.frame else np.zeros((1, 1, 3), np.uint8), level=1)
        day = self.folder / datetime.now(UTC).strftime("%Y%m%d")
        day.mkdir(parents=True, exist_ok=True)
        path = (day / f"{id}{suffix}").absolute()
        write_whole(path, [body])
        return str(path), hashlib.sha256(body).hexdigest()

    def prune(self, *, by_age: bool = True) -> int:
        """Delete images older than `max_age` (if `by_age`), then the oldest ones beyond `max_bytes`; returns how many.

        The SQLite file itself holds a copy of each marked image, so these are never lost.
        """
        found = []
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):
                state = path.stat()
                found.append((path.parent.name, state.st_mtime, state.st_size, path))
        found.sort()
        total = sum(size for _, _, size, _ in found)
        horizon = time.time() - 86_400 * self._settings.max_age if by_age else float("-inf")
        gone = 0
        for _, changed, size, path in found:
            if changed >= horizon and total <= self._settings.max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
                gone += 1
        for day in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                if day.is_dir() and day.name != datetime.now(UTC).strftime("%Y%m%d"):
                    day.rmdir()  # fails, and is ignored, if the folder is not empty
        return gone
