"""Memory that frames, a bundle being loaded or an artefact took and let go of goes back to the system."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_BYTES = 128 * 1024
_DONTNEED = 4  # MADV_DONTNEED of Linux's mman-common.h
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ [1-9]\d* ")  # of a file (it has an inode), read only


def give_back() -> None:
    """Ask glibc for pages of their own for all that is larger than 128 KiB, as it does until the first is freed.

    From then on it would put frames among what lives longer, in an arena for each thread: what is freed between stays
    with the process, and grows for minutes. Other C libraries have no such setting, nor the habit.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _BYTES)
    except (OSError, AttributeError):
        return


def trim() -> None:
    """What was freed since, in small pieces, of which loading a bundle leaves tens of megabytes; and libraries' pages.

    Most of an engine's code compiles graphs, and is not run again: what is comes back from the file, page by page.
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
    """Address and bytes of what is mapped from a file and equal to it, as proc(5) lists a process's mappings."""
    found: tuple[int, int] | None = None
    for line in smaps.splitlines():
        if head := _MAPPING.match(line):
            start, end = int(head[1], 16), int(head[2], 16)
            found = start, end - start
        elif found and line.startswith("Anonymous:"):
            if line.split()[1] == "0":  # else relocated by the loader, or a debugger's
                yield found
            found = None
