"""The errors of calibration: one exception tree. Each message says what is wrong, where, and what to do."""


class CalibrationError(Exception):
    """The base of all errors of calibration. Catch this class to catch all of them."""


class ScoresError(CalibrationError):
    """Scores, p-values or frames that cannot be used: wrong shape or type, NaN, infinite, too few."""


class SettingsError(CalibrationError):
    """A setting outside its range, such as an alpha of 0 or 1."""


class StateError(CalibrationError):
    """A drift alarm's saved state that is damaged or belongs to another calibration."""


class CalibrationFileError(CalibrationError):
    """A file that is missing, damaged, not a calibration, or a calibration of another subject."""
