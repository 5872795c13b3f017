"""Real servers on loopback ports."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ahl_runtime.server.serve import Server
from ahl_runtime.server.settings import Settings


@pytest.fixture
def served() -> Iterator[Callable[..., Server]]:
    """Starts servers; they stop with the test."""
    with ExitStack() as stack:
        yield lambda app, settings=None: stack.enter_context(Server(app, settings or Settings(port=0)))
