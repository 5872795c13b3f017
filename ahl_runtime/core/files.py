"""Paths that callers give, and files that are written whole or not at all, also on a full disk.

A file is written under a temporary name in the same folder and then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def as_path(value: object, what: str, error: type[Exception]) -> Path:
    """The path that a caller gave. `error`, which names `what` the path is for, if it is neither str nor Path."""
    if isinstance(value, str | os.PathLike) and (text := os.fspath(value)) and "\0" not in text:
        return Path(text)
    raise error(f"{what} is {value!r:.80}: expected a path, str or Path")


def write_whole(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` to `path`. After an OSError no new file is left, and an older file at `path` is unchanged."""
    with _temporary(path, chunks, 0o666) as temporary:
        temporary.replace(path)
    _sync_folder(path.parent)


def write_new(path: Path, chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> None:
    """Write `chunks` to a new file, with `mode` minus the umask. FileExistsError, OSError."""
    with _temporary(path, chunks, mode) as temporary:
        try:
            os.link(temporary, path)  # unlike a rename, a link fails if the file exists
        except FileExistsError:
            raise
        except OSError:  # no hard links on this file system
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            temporary.replace(path)
        else:
            temporary.unlink()
    _sync_folder(path.parent)


@contextlib.contextmanager
def _temporary(path: Path, chunks: Iterable[bytes | memoryview], mode: int) -> Iterator[Path]:
    """A temporary file next to `path` that holds `chunks`, flushed to the disk. It is removed if anything fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the file that the caller named
        raise


def _sync_folder(folder: Path) -> None:
    """Flush the rename to the disk, so that it survives a power cut. Windows does not support this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
