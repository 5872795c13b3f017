"""Images that are kept: rejects, and a sample of the others; the oldest go first, by age and by bytes."""

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
    """A folder with one for each day."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self.folder = settings.images

    def wanted(self, decision: Decision) -> bool:
        """Is the image of this decision to be kept? Of the sample, by chance."""
        if self._settings.keep_rejects and decision.verdict != "pass":
            return True
        return random.random() < self._settings.keep_passes

    def keep(self, id: str, pending: PendingFrame) -> tuple[str, str]:
        """Write a frame's file as it came, or its pixels as PNG: absolute path, SHA-256. OSError.

        Lossless, so that a marked image can be trained on.
        """
        suffix = pending.path.suffix.lower() if pending.path else suffix_of(pending.body) if pending.body else ".png"
        body = pending.body or png(pending.frame.image if pending.frame else np.zeros((1, 1, 3), np.uint8), level=1)
        day = self.folder / datetime.now(UTC).strftime("%Y%m%d")
        day.mkdir(parents=True, exist_ok=True)
        path = (day / f"{id}{suffix}").absolute()
        write_whole(path, [body])
        return str(path), hashlib.sha256(body).hexdigest()

    def prune(self, *, by_age: bool = True) -> int:
        """Delete what is older than the settings say (unless not `by_age`), then the oldest beyond the bytes; how many.

        An image that someone marked stays in the store itself, whatever becomes of its file.
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
                    day.rmdir()  # where it is empty
        return gone
