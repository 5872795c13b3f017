"""What can go wrong on the device: one exception tree, each message with what, where and the way out."""

from collections.abc import Iterator
from contextlib import contextmanager


class RuntimeFault(Exception):  # noqa: N818 (RuntimeError is Python's own)
    """Anything that the runtime refuses or cannot do; catch this one."""


class ImageError(RuntimeFault):
    """An image that is missing, damaged, too large, or not uint8 [H, W, 3] where pixels are handed over."""


class BundleError(RuntimeFault):
    """A bundle that is missing, damaged, altered, of another format version, or that cannot be written."""


class EngineError(RuntimeFault):
    """An engine that is not there, refuses the model, or fails on a frame."""


class OutputError(RuntimeFault):
    """A result that cannot be written."""


class SigningError(RuntimeFault):
    """A key that is missing, of another kind, there already, or signing that is not installed."""


class SideFileError(RuntimeFault):
    """A calibration of the device's own that is damaged, of another bundle, or cannot be written."""


class StoreError(RuntimeFault):
    """The store of decisions: missing, foreign, full, or without what was asked."""


class BenchError(RuntimeFault):
    """A measurement that cannot be made, or whose process ended."""


class ConfigError(RuntimeFault):
    """A line's settings that are missing, misspelt or contradict each other."""


class Busy(RuntimeFault):
    """The line takes no frame now: its queue is full, it stops, or its store cannot be written."""


class NoSource(RuntimeFault):
    """A source that this line does not have."""


class SourceError(RuntimeFault):
    """A camera, a stream or a folder that gives no frames."""


class SinkError(RuntimeFault):
    """A receiver that did not take a message."""


@contextmanager
def raised_as(own: type[Exception], *foreign: type[Exception]) -> Iterator[None]:
    """At a package's front door: errors of other packages' trees become one of its own, with the same message."""
    try:
        yield
    except foreign as error:
        raise own(str(error)) from error
