"""Thresholds from normal scores that keep their promise, and an alarm when the line changes. numpy only."""

from calibration.errors import CalibrationError, CalibrationFileError, ScoresError, SettingsError
from calibration.promise import Promise
from calibration.threshold import Calibration, fit

__all__ = [
    "Calibration",
    "CalibrationError",
    "CalibrationFileError",
    "Promise",
    "ScoresError",
    "SettingsError",
    "fit",
]
