"""The machine that figures come from, in words."""

import platform
from pathlib import Path


def cpu() -> str:
    """The CPU's name."""
    names = (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def machine() -> str:
    """Cores, CPU and Python."""
    cores = sum(line.startswith("processor") for line in _cpuinfo())
    return f"{cores} cores of an {cpu()}, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
