"""Memory that frames, or a bundle being loaded, took and let go of goes back to the system."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_BYTES = 128 * 1024


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
    """What was freed since, in small pieces: loading a bundle leaves tens of megabytes of them."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return
