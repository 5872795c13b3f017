"""Store and forward: deliver the messages in the store to a sink in order, at least once each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ahl_runtime.core.backoff import Backoff
from ahl_runtime.core.errors import RuntimeFault, SinkError, StoreError
from ahl_runtime.line.settings import StoreSettings
from ahl_runtime.line.sinks.settings import SinkSettings
from ahl_runtime.line.store.journal import Journal, Message

log = logging.getLogger(__name__)
_MOST = 100  # messages read at once
_LOOK = 1.0  # seconds between checks without a wake-up


class Sink(Protocol):
    """A receiver of messages. Only one thread uses it."""

    def send(self, messages: Sequence[Message]) -> int:
        """Deliver messages in order; returns how many arrived, 1 or more. SinkError if none did."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


class Outbox:
    """Sends one sink's messages. `make`: opens the sink, again after a SinkError. `last_error`: '' if there is none."""

    def __init__(self, settings: SinkSettings, store: StoreSettings, make: Callable[[], Sink]) -> None:
        self.name = settings.name
        self.last_error = ""
        self.depth = 0
        self._settings, self._path, self._make = settings, store.path, make
        self._wake = threading.Event()
        self._sink: Sink | None = None

    def wake(self) -> None:
        """Signal that there are new messages."""
        self._wake.set()

    def run(self, stopped: Callable[[float], bool], drained: Callable[[], bool]) -> None:
        """Send until stopped and all messages are sent, or until `drained` returns True: the time is up."""
        backoff = Backoff(self._settings.retry, self._settings.retry_most)
        while True:
            ending = stopped(0.0)
            try:
                with Journal(self._path) as journal:
                    while self._step(journal.relaxed()):
                        backoff.reset()
                        self.last_error = ""
                        if drained():
                            return
                    backoff.reset()
                    self.last_error = ""
            except RuntimeFault as error:
                if not self.last_error:
                    log.warning("a sink fails", extra={"sink": self.name, "error": str(error)})
                self.last_error = str(error)
                self._drop()
                if ending or drained():
                    return
                stopped(backoff.next())  # new messages do not shorten the pause
                continue
            if ending or drained():
                return
            self._wait(_LOOK, stopped)

    def close(self) -> None:
        """Close the sink."""
        self._drop()

    def _wait(self, seconds: float, stopped: Callable[[float], bool]) -> None:
        until = time.monotonic() + seconds
        while not stopped(0.0) and (left := until - time.monotonic()) > 0:
            if self._wake.wait(min(left, 0.25)):
                break
        self._wake.clear()

    def _step(self, journal: Journal) -> bool:
        """Send the next messages; False if there are none."""
        self._wake.clear()
        messages = journal.waiting(self.name, _MOST)
        if not messages:
            self.depth = 0
            return False
        wanted = [m for m in messages if m.outcome in self._settings.only]
        arrived = self._send(wanted) if wanted else 0
        number = messages[-1].number if arrived == len(wanted) else wanted[arrived - 1].number
        journal.sent(self.name, number)
        self.depth = journal.depth(self.name)
        return True

    def _send(self, messages: Sequence[Message]) -> int:
        try:
            if self._sink is None:
                self._sink = self._make()
            return self._sink.send(messages)
        except SinkError:
            raise
        except StoreError:
            raise
        except Exception as error:  # a protocol's library may raise anything; the outbox tries again
            raise SinkError(f"{self.name}: {type(error).__name__}: {error}") from error

    def _drop(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            try:
                sink.close()
            except Exception:
                log.debug("closing a sink failed", exc_info=True, extra={"sink": self.name})
