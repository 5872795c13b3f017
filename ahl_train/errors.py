"""The errors of training: one tree; each message says what was wrong, where, and the way out."""


class TrainError(Exception):
    """Root of the tree. The command line prints its message as one line and exits with 2."""


class DataError(TrainError):
    """Images, masks, labels or folders that cannot be used as requested."""


class ConfigError(TrainError):
    """A setting whose value is unknown, out of range or in conflict with another."""


class WeightsError(TrainError):
    """Backbone weights that are missing or belong to another architecture, or a backbone that does not fit."""


class RunError(TrainError):
    """A run folder that cannot be written, resumed or read back."""


class MissingExtraError(TrainError):
    """An optional part of the library whose extra is not installed."""
