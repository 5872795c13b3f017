"""Memory that is freed and soon needed again stays with the process."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h


def keep() -> None:
    """Of this process, from now on; on Linux with glibc, elsewhere nothing.

    glibc gives large blocks back at once and asks for them anew: for a step of CDL, whose tensors have tens of
    megabytes, the system's clearing of pages took as long as the arithmetic.
    """
    _set(0, 2**31 - 1)


def release() -> None:
    """The opposite of ``keep``, glibc's own numbers.

    Where small blocks that stay lie between large ones that go, kept memory grows by a large block each time.
    """
    _set(65536, 128 * 1024)


def _set(mapped: int, trimmed: int) -> None:
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MMAP_MAX, mapped)
        mallopt(_TRIM_THRESHOLD, trimmed)
