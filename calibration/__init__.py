"""Thresholds from normal scores that keep their promise, and an alarm when the line changes. numpy only."""

from typing import Any

from calibration.conformal import (
    Mondrian,
    benjamini_hochberg,
    cross_p_values,
    fit_cross,
    fit_mondrian,
)
from calibration.drift import Drift, DriftReport
from calibration.errors import (
    CalibrationError,
    CalibrationFileError,
    ScoresError,
    SettingsError,
    StateError,
)
from calibration.frames import FrameStatistics, frame_statistics
from calibration.promise import Promise
from calibration.rank import cross_bound
from calibration.tail import TailFit, fit_tail
from calibration.threshold import Calibration, fit

__all__ = [
    "Calibration",
    "CalibrationError",
    "CalibrationFileError",
    "Drift",
    "DriftReport",
    "FrameStatistics",
    "Mondrian",
    "Promise",
    "ScoresError",
    "SettingsError",
    "StateError",
    "TailFit",
    "benjamini_hochberg",
    "cross_bound",
    "cross_p_values",
    "fit",
    "fit_cross",
    "fit_mondrian",
    "fit_tail",
    "frame_statistics",
]


def __getattr__(name: str) -> Any:
    """`__version__`, the distribution's."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ahl")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
