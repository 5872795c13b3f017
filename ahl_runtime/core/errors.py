"""The errors of the device: one exception tree. Each message says what is wrong, where, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class RuntimeFault(Exception):  # noqa: N818 (RuntimeError is Python's own)
    """The base of all errors of the runtime. Catch this class to catch all of them."""


class ImageError(RuntimeFault):
    """An image that is missing, damaged or too large, or pixels that are not uint8 [H, W, 3]."""


class BundleError(RuntimeFault):
    """A bundle that is missing, damaged, altered, of another format version, or that cannot be written."""


class EngineError(RuntimeFault):
    """An engine that is not installed, cannot load the model, or fails on a frame."""


class OutputError(RuntimeFault):
    """A result that cannot be written."""


class SigningError(RuntimeFault):
    """A key that is missing, of the wrong kind or exists already, or signing that is not installed."""


class SideFileError(RuntimeFault):
    """A calibration made on the device that is damaged, belongs to another bundle, or cannot be written."""


class StoreError(RuntimeFault):
    """A store of decisions that is missing, full or not a store, or that lacks what was requested."""


class BenchError(RuntimeFault):
    """A measurement that cannot be made, or a measuring process that ended early."""


class ConfigError(RuntimeFault):
    """Settings of a line that are missing, misspelt, or contradict each other."""


class Busy(RuntimeFault):
    """The line accepts no frame now: its queue is full, it is stopping, or its store cannot be written."""


class NoSource(RuntimeFault):
    """A name that is not a source of this line."""


class SourceError(RuntimeFault):
    """A camera, a stream or a folder that gives no frames."""


class SinkError(RuntimeFault):
    """A receiver that did not accept a message."""


def about(error: OSError) -> str:
    """What a file or folder failed with, and the way out, for a person."""
    return f"{error.filename or 'the output'}: {error.strerror or error}: check the place and its free space"


@contextmanager
def raised_as(own: type[Exception], *foreign: type[Exception]) -> Iterator[None]:
    """Raise errors of the `foreign` types, and OSErrors, as `own`. For the public functions of a package."""
    try:
        yield
    except foreign as error:
        raise own(str(error)) from error
    except OSError as error:
        raise own(about(error)) from error
