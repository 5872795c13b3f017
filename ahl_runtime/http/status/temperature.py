"""Temperatures of the device from Linux's thermal zones, where it has them."""

from __future__ import annotations

import contextlib
from pathlib import Path

ZONES = Path("/sys/class/thermal")


def temperatures(zones: Path = ZONES) -> dict[str, float]:
    """Degrees Celsius by zone, such as "x86_pkg_temp"; empty where there is none."""
    found: dict[str, float] = {}
    for zone in sorted(zones.glob("thermal_zone*")):
        with contextlib.suppress(OSError, ValueError):  # a zone may be there and not readable
            degrees = int((zone / "temp").read_text()) / 1000
            name = (zone / "type").read_text().strip()
            found[name if name not in found else f"{name}-{zone.name[12:]}"] = degrees
    return found
