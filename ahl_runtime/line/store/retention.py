"""Retention: delete old images and decisions, images over the size limit, and messages that every sink received."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ahl_runtime.core.errors import StoreError
from ahl_runtime.line.settings import StoreSettings
from ahl_runtime.line.store.images import Images
from ahl_runtime.line.store.journal import Journal

log = logging.getLogger(__name__)
_EVERY = 30.0  # seconds between two runs
_LEAP = 3600.0  # seconds; a larger jump of the clock stops deletion by age


def run(settings: StoreSettings, stopped: Callable[[float], bool]) -> None:
    """Run until `stopped`, which waits for the given seconds. Delete by age only while the clock is steady."""
    images = Images(settings)
    offset = time.time() - time.monotonic()
    while not stopped(_EVERY):
        steady = abs(time.time() - time.monotonic() - offset) < _LEAP
        before = datetime.now(UTC) - timedelta(days=settings.decisions_age)
        try:
            images.prune(by_age=steady)
            with Journal(settings.path) as journal:
                journal.prune(before.isoformat(timespec="milliseconds") if steady else None)
        except (StoreError, OSError) as error:
            log.warning("retention failed", extra={"error": str(error)})
