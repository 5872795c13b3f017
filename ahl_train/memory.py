"""Keeps freed memory in the process, because it is soon needed again."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h


def keep() -> None:
    """Keep freed memory in this process from now on. Works on Linux with glibc; does nothing elsewhere.

    glibc returns large blocks to the system at once and requests them again. In a step of CDL, whose tensors have tens
    of megabytes, the system's clearing of pages took as long as the arithmetic.
    """
    _set(0, 2**31 - 1)


def release() -> None:
    """Restore glibc's own settings: the opposite of ``keep``.

    If small blocks that stay lie between large freed ones, kept memory grows by a large block each time.
    """
    _set(65536, 128 * 1024)


def _set(mapped: int, trimmed: int) -> None:
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MMAP_MAX, mapped)
        mallopt(_TRIM_THRESHOLD, trimmed)
