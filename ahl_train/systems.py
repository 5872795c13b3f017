"""The systems: those of the tables, ours, and those of plug-ins. Each has a base model, and says whether AHL wraps it.

This module is light: a system's own module, which imports torch, is imported at its first use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ahl_runtime.core.plugins import Registry
from ahl_train.errors import ConfigError

if TYPE_CHECKING:
    from ahl_train.features import Extractor
    from ahl_train.heads.base import Base


@dataclass(frozen=True)
class System:
    """A row of the tables."""

    title: str
    base: Callable[[Extractor, int], Base]  # from the extractor and the number of seen anomalies
    ahl: bool  # wrapped by AHL, or trained plainly on everything
    schedule: str = "light"  # the schedule for "auto": a key of config.SCHEDULES
    least: int = 1  # train normals needed
    folds: int = 0  # of the out-of-fold scores that it gives its train normals while it learns, at no cost; 0: none


SYSTEMS: Registry[System] = Registry(
    "ahl.heads",
    {
        "saoe": "ahl_train.heads.saoe:SYSTEM",
        "mlep": "ahl_train.heads.mlep:SYSTEM",
        "flos": "ahl_train.heads.flos:SYSTEM",
        "devnet": "ahl_train.heads.devnet:SYSTEM",
        "dra": "ahl_train.heads.dra.head:SYSTEM",
        "ahl-devnet": "ahl_train.heads.devnet:AHL_SYSTEM",
        "ahl-dra": "ahl_train.heads.dra.head:AHL_SYSTEM",
        "ahl-density": "ahl_train.heads.density:SYSTEM",
    },
    "an ahl_train.systems.System",
    lambda value: isinstance(value, System),
    ConfigError,
)
DEFAULT_SYSTEM = "ahl-density"
_FORMER = {"ahl-plus": "ahl-density"}  # names in older runs


def canonical(name: str) -> str:
    """The current name of a system."""
    return _FORMER.get(name, name)


def system(name: str) -> System:
    """The system of that name. ConfigError, with the choices, for an unknown name, or for a broken plug-in."""
    try:
        return SYSTEMS[canonical(name)]
    except KeyError:
        raise ConfigError(f"unknown system {name!r}: choose among {', '.join(SYSTEMS)}") from None
