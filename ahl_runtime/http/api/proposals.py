"""Previewed calibrations that can be activated: the newest eight, for ten minutes."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import OrderedDict

from ahl_runtime.http.errors import Refusal
from ahl_runtime.score.recalibrate import Proposal


class Proposals:
    """Keeps each by a random id, so that a client activates exactly what it was shown."""

    _MOST, _SECONDS = 8, 600.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, tuple[float, str, Proposal]] = OrderedDict()

    def keep(self, source: str, proposal: Proposal) -> str:
        """Keep a proposal; its id."""
        with self._lock:
            id = secrets.token_hex(8)
            self._waiting[id] = (time.monotonic(), source, proposal)
            while len(self._waiting) > self._MOST:
                self._waiting.popitem(last=False)
            return id

    def take(self, id: str, source: str) -> Proposal:
        """Take a proposal out. Refusal, 409, if there is none with this id, it is too old, or of another source."""
        with self._lock:
            when, of, proposal = self._waiting.pop(id, (-math.inf, "", None))
        if proposal is None or of != source or time.monotonic() - when > self._SECONDS:
            raise Refusal(409, f"no preview {id[:64]!r} of {source} from the last ten minutes: preview again")
        return proposal
