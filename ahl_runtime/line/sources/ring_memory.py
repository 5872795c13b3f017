"""A ring of frames in shared memory between a frame grabber and a line on one computer: layout, writer and reader.

docs/reference/ring.md specifies the layout, so that a grabber in any language can write it. Writer and Reader use file
reads and writes, not a memory map: each call is a barrier, and a truncated file gives an error instead of SIGBUS.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.errors import ImageError, OutputError, SourceError

MAGIC = b"AHLRING\0"
VERSION = 1
_HEAD = struct.Struct("<8sIIQQQ")  # magic, version, slots, bytes a slot, id, frames written
_WRITTEN_AT = _HEAD.size - 8
_SLOT = struct.Struct("<QQQIII")  # begun, done, captured, height, width, channels
_STEP = 64  # bytes of each header; slots are multiples of it: a cache line
_MOST_SLOTS, _MOST_BYTES = 4096, 1 << 32


class Writer:
    """Makes a ring of `slots` frames of up to `frame_bytes` (height x width x channels) at `path`, in /dev/shm.

    It replaces an existing ring atomically; readers then switch to the new ring. `mode`: the file's permissions.
    OutputError. A context manager; only one thread may write.
    """

    def __init__(self, path: Path, slots: int, frame_bytes: int, mode: int = 0o600) -> None:
        if not 2 <= slots <= _MOST_SLOTS or not 1 <= frame_bytes <= _MOST_BYTES - 2 * _STEP:
            raise OutputError(f"a ring of {slots} frames of {frame_bytes} bytes: give 2 to {_MOST_SLOTS} frames")
        self.path, self.slots = path, slots
        self._slot_bytes = _STEP + -(-frame_bytes // _STEP) * _STEP
        self._written = 0
        new = path.with_name(f".{path.name}.{os.getpid()}")
        self._file = -1
        try:
            new.unlink(missing_ok=True)  # left by a killed process with the same id
            self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            os.fchmod(self._file, mode)  # independent of the umask
            os.posix_fallocate(self._file, 0, _STEP + slots * self._slot_bytes)  # a full disk fails here, not later
            head = _HEAD.pack(MAGIC, VERSION, slots, self._slot_bytes, time.time_ns(), 0)
            os.pwrite(self._file, head, 0)
            new.rename(path)
        except OSError as error:
            if self._file >= 0:
                self.close()
                new.unlink(missing_ok=True)
            raise OutputError(f"{path}: no ring can be made ({error.strerror or error}): check its folder") from error

    def write(self, image: NDArray[np.uint8], captured_ns: int | None = None) -> int:
        """Write a frame, uint8 [H, W] or [H, W, 3] RGB, over the oldest; returns its number, from 1 on.

        `captured_ns`: nanoseconds since 1970; now by default. ImageError if the frame does not fit.
        """
        channels = image.shape[2] if image.ndim == 3 else 1
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3) or not image.size:
            raise ImageError(f"expected uint8 [H, W] or [H, W, 3], got {image.dtype} {list(image.shape)}")
        if image.size > self._slot_bytes - _STEP:
            raise ImageError(f"{image.size} bytes do not fit in a slot of {self._slot_bytes - _STEP}: make a new ring")
        number = self._written + 1
        at = _STEP + self._written % self.slots * self._slot_bytes
        captured = time.time_ns() if captured_ns is None else captured_ns
        file = self._file
        os.pwrite(file, struct.pack("<Q", number), at)  # begun: a reader of this slot discards what it read
        os.pwrite(file, struct.pack("<QIII", captured, *image.shape[:2], channels), at + 16)
        _whole(file, np.ascontiguousarray(image).data.cast("B"), at + _STEP)
        os.pwrite(file, struct.pack("<Q", number), at + 8)  # done
        os.pwrite(file, struct.pack("<Q", number), _WRITTEN_AT)
        self._written = number
        return number

    def close(self) -> None:
        """Close the file. It is not deleted: readers can still read its frames."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _whole(file: int, data: memoryview, at: int) -> None:
    while data:
        done = os.pwrite(file, data, at)
        data, at = data[done:], at + done


@dataclass(frozen=True, eq=False)
class Taken:
    """A frame of a ring. `image`: uint8 [H, W] or [H, W, 3] RGB. `captured_ns`: nanoseconds since 1970, 0: unknown."""

    number: int
    image: NDArray[np.uint8]
    captured_ns: int


class Reader:
    """Reads a ring. SourceError if there is no ring, or if this version cannot read it. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise SourceError(f"{path}: no ring ({error.strerror or error}): does its grabber run?") from error
        try:
            state = os.fstat(self._file)
            head = os.pread(self._file, _HEAD.size, 0)
            if len(head) < _HEAD.size or head[:8] != MAGIC:
                raise SourceError(f"{path}: not a ring of frames")
            _, version, self.slots, self._slot_bytes, self.id, _ = _HEAD.unpack(head)
            if version != VERSION:
                raise SourceError(f"{path}: ring version {version}, this runtime reads {VERSION}: update one of them")
            fits = _STEP + self.slots * self._slot_bytes <= state.st_size
            whole = 2 <= self.slots <= _MOST_SLOTS and _STEP < self._slot_bytes <= _MOST_BYTES
            if not whole or self._slot_bytes % _STEP or not fits:
                sizes = f"{self.slots} slots of {self._slot_bytes} bytes in a file of {state.st_size}"
                raise SourceError(f"{path}: {sizes}: see docs/reference/ring.md")
            self._known = (state.st_dev, state.st_ino)
        except BaseException:
            os.close(self._file)
            raise

    def written(self) -> int:
        """The number of the newest frame; 0 before the first."""
        while True:  # a read may overlap a write, but two reads then differ
            first, second = (self._read(8, _WRITTEN_AT) for _ in range(2))
            if first == second:
                return int.from_bytes(first, "little")

    def replaced(self) -> bool:
        """True if the ring was deleted, or replaced by another file."""
        try:
            state = self._path.lstat()
        except OSError:
            return True
        return (state.st_dev, state.st_ino) != self._known

    def take(self, number: int) -> Taken | None:
        """Read frame `number`, at most `written()`; None: the frame was overwritten, before or during the read.

        ImageError: the frame's size does not fit its slot.
        """
        at = _STEP + (number - 1) % self.slots * self._slot_bytes
        begun, done, captured, height, width, channels = _SLOT.unpack(self._read(_SLOT.size, at))
        if begun != number or done != number:
            if max(begun, done) < number:
                raise SourceError(
                    f"{self._path}: the slot of frame {number} still holds frame {done}: see docs/reference/ring.md"
                )
            return None
        size = height * width * channels
        fits = channels in (1, 3) and 0 < size <= self._slot_bytes - _STEP
        pixels = bytearray(size) if fits else bytearray()
        if fits and os.preadv(self._file, [pixels], at + _STEP) != size:
            raise SourceError(f"{self._path}: it was cut short")
        (still,) = struct.unpack("<Q", self._read(8, at))
        if still != number:
            return None
        if not fits:
            raise ImageError(f"frame {number} of {width}x{height}x{channels} does not fit its slot")
        shape = (height, width, 3) if channels == 3 else (height, width)
        return Taken(number, np.frombuffer(pixels, np.uint8).reshape(shape), captured)

    def _read(self, size: int, at: int) -> bytes:
        found = os.pread(self._file, size, at)
        if len(found) != size:
            raise SourceError(f"{self._path}: it was cut short")
        return found

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
