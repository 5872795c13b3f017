"""The machine that figures come from, in words."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu() -> str:
    """The CPU's name, or the board's where the system tells no more."""
    names = (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    board = (line.strip("\0") for line in _lines("/proc/device-tree/model"))
    return next(names, "") or next(board, "") or platform.processor() or platform.machine()


def machine() -> str:
    """Cores, CPU and Python."""
    cores = sum(line.startswith("processor") for line in _lines("/proc/cpuinfo"))
    return f"{cores} cores of an {cpu()}, Python {platform.python_version()}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
