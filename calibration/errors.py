"""What can go wrong in calibration: one exception tree, each message with what, where and the way out."""


class CalibrationError(Exception):
    """Anything that calibration refuses; catch this one."""


class ScoresError(CalibrationError):
    """Scores, p-values or frames that cannot be used: wrong shape or type, NaN, infinite, too few."""


class SettingsError(CalibrationError):
    """A setting outside its range, such as an alpha of 0 or 1."""


class StateError(CalibrationError):
    """A drift alarm's saved state that is damaged or belongs to another calibration."""


class CalibrationFileError(CalibrationError):
    """A calibration file that is missing, foreign, corrupt, or of another subject."""
