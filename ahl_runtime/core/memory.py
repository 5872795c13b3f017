"""Return freed memory to the system: memory of frames, and of loading a bundle or an artefact."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_BYTES = 128 * 1024
_DONTNEED = 4  # MADV_DONTNEED of Linux's mman-common.h
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ [1-9]\d* ")  # a file (it has an inode), read only


def give_back() -> None:
    """Make glibc map every block above 128 KiB in pages of its own, which it returns to the system when it is freed.

    By default glibc raises this limit when the first such block is freed. It then places frames between blocks that
    live longer, in one arena for each thread. Blocks freed in between stay with the process, which grows for minutes.
    Other C libraries have neither this setting nor this behaviour: then nothing happens.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _BYTES)
    except (OSError, AttributeError):
        return


def trim() -> None:
    """Return small freed blocks and the pages of libraries to the system. Loading a bundle frees tens of megabytes.

    Most of an engine's code compiles graphs and does not run again. Code that does run is read again from its file,
    page by page.
    """
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for start, size in _unwritten(Path("/proc/self/smaps").read_text()):
            library.madvise(start, size, _DONTNEED)
    except (OSError, AttributeError):
        return


def _unwritten(smaps: str) -> Iterator[tuple[int, int]]:
    """Address and bytes of each mapping that is equal to its file. `smaps`: text of /proc/self/smaps, see proc(5)."""
    found: tuple[int, int] | None = None
    for line in smaps.splitlines():
        if head := _MAPPING.match(line):
            start, end = int(head[1], 16), int(head[2], 16)
            found = start, end - start
        elif found and line.startswith("Anonymous:"):
            if line.split()[1] == "0":  # otherwise the loader or a debugger changed the pages
                yield found
            found = None
