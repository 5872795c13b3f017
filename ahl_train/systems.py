"""The systems of the tables, and ours: which base model, and whether AHL wraps it."""

from collections.abc import Callable
from dataclasses import dataclass

from ahl_train.errors import ConfigError
from ahl_train.features import Extractor
from ahl_train.heads.base import Base
from ahl_train.heads.density import FOLDS, LEAST, Density
from ahl_train.heads.devnet import DevNet
from ahl_train.heads.dra.head import DRA
from ahl_train.heads.flos import FLOS
from ahl_train.heads.mlep import MLEP
from ahl_train.heads.saoe import SAOE


@dataclass(frozen=True)
class System:
    """A row of the tables."""

    title: str
    base: Callable[[Extractor, int], Base]  # of the extractor and the number of seen anomalies
    ahl: bool  # wrapped by AHL, or trained plainly on everything
    schedule: str = "light"  # what "auto" is to it: a key of config.SCHEDULES
    least: int = 1  # train normals
    folds: int = 0  # in which it scores its train normals out of fold as it learns, at no cost; 0: it does not


SYSTEMS = {
    "saoe": System("SAOE", lambda e, shots: SAOE(e.channels), ahl=False),
    "mlep": System("MLEP", lambda e, shots: MLEP(e.channels), ahl=False),
    "flos": System("FLOS", lambda e, shots: FLOS(e.channels), ahl=False),
    "devnet": System("DevNet", lambda e, shots: DevNet(e.channels), ahl=False),
    "dra": System("DRA", lambda e, shots: DRA(e.channels), ahl=False, schedule="short"),
    "ahl-devnet": System("AHL(DevNet)", lambda e, shots: DevNet(e.channels), ahl=True),
    "ahl-dra": System("AHL(DRA)", lambda e, shots: DRA(e.channels), ahl=True, schedule="short"),
    "ahl-density": System(
        "AHL(Density)",
        lambda e, shots: Density(e.shapes, shots),
        ahl=True,
        schedule="short",
        least=LEAST,
        folds=FOLDS,
    ),
}
DEFAULT_SYSTEM = "ahl-density"
_FORMER = {"ahl-plus": "ahl-density"}  # names in runs that were made before


def canonical(name: str) -> str:
    """Today's name of a system."""
    return _FORMER.get(name, name)


def system(name: str) -> System:
    """ConfigError, naming the choices, for an unknown name."""
    try:
        return SYSTEMS[canonical(name)]
    except KeyError:
        raise ConfigError(f"unknown system {name!r}: choose among {', '.join(SYSTEMS)}") from None
