"""Thresholds from normal scores with a guaranteed false-reject rate, and a drift alarm. Needs numpy only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

    __version__: str

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

_NAMES = {
    "Mondrian": "conformal",
    "benjamini_hochberg": "conformal",
    "cross_p_values": "conformal",
    "fit_cross": "conformal",
    "fit_mondrian": "conformal",
    "Drift": "drift",
    "DriftReport": "drift",
    "CalibrationError": "errors",
    "CalibrationFileError": "errors",
    "ScoresError": "errors",
    "SettingsError": "errors",
    "StateError": "errors",
    "FrameStatistics": "frames",
    "frame_statistics": "frames",
    "Promise": "promise",
    "cross_bound": "rank",
    "TailFit": "tail",
    "fit_tail": "tail",
    "Calibration": "threshold",
    "fit": "threshold",
}


def __getattr__(name: str) -> Any:
    """Import a public name at first use. `__version__`: the version of the distribution ahl."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ahl")
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {', '.join(sorted(_NAMES))}")
    return getattr(import_module(f"calibration.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_NAMES, "__version__"])
