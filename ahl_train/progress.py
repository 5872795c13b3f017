"""The progress bar of training: on a terminal's stderr, and nowhere else: stdout is for results."""

import sys

from rich.console import Console
from rich.progress import Progress


def progress_bar() -> Progress:
    """A bar that leaves nothing behind. It shows nothing where stderr is not a terminal."""
    return Progress(transient=True, console=Console(stderr=True), disable=not sys.stderr.isatty())
