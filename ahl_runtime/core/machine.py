"""A description of this machine, to print with measured figures."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu() -> str:
    """The name of the CPU, or of the board if the system does not name the CPU."""
    names = (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    board = (line.strip("\0") for line in _lines("/proc/device-tree/model"))
    return next(names, "") or next(board, "") or platform.processor() or platform.machine()


def machine() -> str:
    """The number of cores, the CPU and the version of Python, in one phrase."""
    cores = sum(line.startswith("processor") for line in _lines("/proc/cpuinfo"))
    return f"{cores} cores of an {cpu()}, Python {platform.python_version()}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
