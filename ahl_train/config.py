"""The settings of a run: frozen and validated together; one error lists every wrong value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ahl_runtime.core.settings import checked
from ahl_train.data.split import CONFIDENT, held_out_of
from ahl_train.errors import ConfigError
from ahl_train.features.backbone import DEFAULT
from ahl_train.features.pseudo_anomalies import AUGMENTATIONS
from ahl_train.systems import canonical, system

Grouping = Literal["clusters", "random"]
Overlap = Literal["none", "query", "support", "both"]
Calibrate = Literal["auto", "split", "cross"]
_FOLDS = 10


@dataclass(frozen=True)
class Schedule:
    """How long and how fast CDL runs (METHOD, CDL)."""

    epochs: int
    inner_steps: int  # gradient steps of each phi_i on its support, per epoch
    outer_steps: int  # steps of g on the query losses, per epoch
    batch: int  # a third each of normal, seen and pseudo samples
    watched: int  # query samples per group that psi watches
    pseudo: int | None  # most pseudo anomalies in a support or query set; None: half of its normals
    inner_lr: float = 2e-4
    outer_lr: float = 2e-3
    weight_decay: float = 1e-4
    decay_every: int = 10  # epochs between two decays by a factor of 0.1
    clip: float = 1.0  # gradient norm of g


_PAPER = Schedule(epochs=30, inner_steps=60, outer_steps=20, batch=48, watched=128, pseudo=None)
SCHEDULES = {
    # The released settings: 3 passes of 20 batches of 48.
    "paper": _PAPER,
    # For cheap heads: as long as "paper", with few pseudo anomalies and few inner steps (docs/results/accuracy.md).
    "light": replace(_PAPER, inner_steps=4, watched=32, pseudo=48),
    # For expensive heads. The query loss decided: with fewer epochs or an earlier decay it still falls at the end.
    "short": Schedule(epochs=10, inner_steps=4, outer_steps=8, batch=24, watched=32, pseudo=48, decay_every=8),
}


@dataclass(frozen=True)
class TrainConfig:
    """One run of ``ahl train``."""

    data: str
    system: str = "ahl-density"
    shots: int = 10
    seed: int = 0
    setting: Literal["general", "hard"] = "general"
    seen_class: str | None = None
    # "split": on held-out normals; "cross": on all of them, each scored out of fold; "auto": see ``settled``.
    calibrate: Calibrate = "auto"
    calibration: int | None = None  # held-out normals; None: data.split decides, 473 at most
    folds: int | None = None  # for "cross"; None: the system's own number, or 10
    feedback: Path | None = None  # a folder of images labelled on the device, to train on too
    backbone: str = DEFAULT
    backbone_weights: Path | None = None
    schedule: str = "auto"  # "auto": the system's own; or a key of SCHEDULES
    epochs: int | None = None  # overrides the schedule's number
    clusters: int = 3  # K of HADG
    grouping: Grouping = "clusters"
    augmentations: tuple[str, ...] = tuple(AUGMENTATIONS)
    overlap: Overlap = "none"
    importance: bool = True  # CDL+

    def __post_init__(self) -> None:
        object.__setattr__(self, "system", canonical(self.system))
        cross = self.folds is not None or self.calibrate == "cross"
        checks = (
            (self.shots >= 0, f"shots is {self.shots}, expected 0 or more"),
            (0 <= self.seed < 2**63, f"seed is {self.seed}, expected 0 or more, below 2^63"),
            (
                self.schedule in ("auto", *SCHEDULES),
                f"schedule is {self.schedule!r}, choose auto, {' or '.join(SCHEDULES)}",
            ),
            (self.epochs is None or self.epochs >= 1, f"epochs is {self.epochs}, expected 1 or more"),
            (self.clusters >= 2, f"clusters is {self.clusters}, expected 2 or more"),
            (self.setting in ("general", "hard"), f"setting is {self.setting!r}, choose general or hard"),
            (
                self.setting == "general" or self.seen_class is not None,
                "setting hard needs a seen class (seen_class, --seen-class)",
            ),
            (
                self.calibrate in get_args(Calibrate),
                f"calibrate is {self.calibrate!r}, choose auto, split or cross",
            ),
            (
                not cross or not self.calibration,
                f"calibration is {self.calibration}, but calibrate cross (with folds) holds no normals out: "
                "leave one of them out",
            ),
            (
                self.folds is None or self.calibrate != "split",
                f"folds is {self.folds}, but only calibrate cross has folds: leave it out, or choose cross",
            ),
            (
                self.feedback is None or not cross,
                "feedback is not a fair sample of normals, but calibrate cross calibrates on all images that train: "
                "choose split",
            ),
            (
                self.grouping in get_args(Grouping),
                f"grouping is {self.grouping!r}, choose clusters or random",
            ),
            (
                self.overlap in get_args(Overlap),
                f"overlap is {self.overlap!r}, choose {', '.join(get_args(Overlap))}",
            ),
            (
                set(self.augmentations) <= set(AUGMENTATIONS),
                f"augmentations (--pseudo) are {', '.join(self.augmentations)}, "
                f"choose among {', '.join(AUGMENTATIONS)}",
            ),
        )
        wrong = [message for ok, message in checks if not ok]
        if self.folds is not None and self.folds < (fewest := max(2, system(self.system).folds)):
            wrong.append(f"folds is {self.folds}, expected {fewest} or more")
        if wrong:
            raise ConfigError("; ".join(wrong))

    @property
    def steps(self) -> Schedule:
        """The schedule, with ``epochs`` applied. ConfigError for an unknown system."""
        schedule = SCHEDULES[system(self.system).schedule if self.schedule == "auto" else self.schedule]
        return schedule if self.epochs is None else replace(schedule, epochs=self.epochs)

    def settled(self, normals: int) -> "TrainConfig":
        """The settings for a dataset with this many train normals: "auto" becomes "split", or "cross" with ``folds``.

        "auto" becomes cross if ``folds`` is given. It also becomes cross if all of these hold: a split would hold out
        too few normals to guarantee 1% at 95%, the system scores its normals out of fold anyway, and there are neither
        feedback nor a number of calibration normals. Otherwise it becomes split.
        """
        own = system(self.system).folds
        few = held_out_of(normals) < CONFIDENT and own and self.feedback is None and self.calibration is None
        if self.calibrate == "split" or (self.calibrate == "auto" and not few and self.folds is None):
            return replace(self, calibrate="split")
        return replace(self, calibrate="cross", folds=self.folds or own or _FOLDS)

    @property
    def held_out(self) -> int | None:
        """Number of normals to hold out, once settled; None: the split decides."""
        return 0 if self.calibrate == "cross" else self.calibration

    @property
    def fold_count(self) -> int:
        """Number of folds of the train normals, once settled; 0 without cross-calibration."""
        return self.folds or 0

    def to_json(self) -> dict[str, Any]:
        """JSON-able fields; ``checked`` reads them back."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> "TrainConfig":
        """Settings by name, as users and files give them. ConfigError names every wrong key and value."""
        return checked(cls, given, ConfigError)
