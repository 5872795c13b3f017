"""Paths as people give them, and files written aside and renamed: whole or not at all, also on a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def as_path(value: object, what: str, error: type[Exception]) -> Path:
    """A path that a caller gave, str or Path; `error`, with `what` it is for, where it is neither."""
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise error(f"{what} is {value!r:.80}: expected a path, str or Path")


def write_whole(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` to `path`. On OSError nothing new is left behind, and an older file at `path` stays."""
    with _written_aside(path, chunks, 0o666) as aside:
        aside.replace(path)
    _sync_folder(path.parent)


def write_new(path: Path, chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> None:
    """Write `chunks` to a file that is not there yet, with `mode` less the umask; FileExistsError, OSError."""
    with _written_aside(path, chunks, mode) as aside:
        try:
            os.link(aside, path)  # unlike a rename, it fails where a file is
        except FileExistsError:
            raise
        except OSError:  # no hard links on this file system
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            aside.replace(path)
        else:
            aside.unlink()
    _sync_folder(path.parent)


@contextlib.contextmanager
def _written_aside(path: Path, chunks: Iterable[bytes | memoryview], mode: int) -> Iterator[Path]:
    """A file beside `path` that holds `chunks`, on the disk; removed if anything fails."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system allows it (Windows does not)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
