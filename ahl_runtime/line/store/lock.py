"""One line at a time writes to a store: a second one would take the first one's messages and files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ahl_runtime.core.errors import StoreError


class StoreLock:
    """The lock of a running line on its store, the file STORE.lock. StoreError if another line holds it.

    The system releases it when the process ends, also if it is killed. `release` does so before. The empty file stays.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        path = store.with_name(f"{store.name}.lock")
        try:
            self._new = not store.exists()
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(
                f"{store}: {error.strerror or error}: check the file, its folder and their free space"
            ) from error
        try:
            self._take()
        except OSError as error:
            os.close(self._file)
            raise StoreError(
                f"{store}: another line uses it: stop that line, or give this one another store"
            ) from error

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """A block that may create the store. If it fails, the lock is released, and a store that is new is removed."""
        try:
            yield
        except BaseException:
            for end in ("", "-wal", "-shm", ".lock") if self._new else ():
                self._store.with_name(self._store.name + end).unlink(missing_ok=True)
            self.release()
            raise

    def release(self) -> None:
        """Let other lines use the store. Twice is once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            return
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
