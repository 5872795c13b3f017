"""What the handlers share: the line as the server sees it, the settings, and who may ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.server.access import Access
from ahl_runtime.server.metrics import Latency
from ahl_runtime.server.settings import Settings
from ahl_runtime.server.state import State
from ahl_runtime.types import Decision, Outputs

_FRESH = 0.2  # seconds for which a state is told to everyone who asks


class Loaded(Protocol):
    """The model that decides. `name`: the bundle's file stem; `digest`: the bundle's; `engine`: what runs it."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def map_range(self) -> tuple[float, float]: ...


class Recorded(Protocol):
    """A decision that was stored, and the id it was stored with."""

    @property
    def id(self) -> str: ...
    @property
    def decision(self) -> Decision: ...


class Line(Protocol):
    """What the server asks of the line; RuntimeFault from every method."""

    @property
    def model(self) -> Loaded: ...
    @property
    def store_path(self) -> Path: ...

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Score frames, uint8 [N, H, W, 3]; nothing is decided or stored."""
        ...

    def submit(self, image: NDArray[np.uint8], source: str | None, frame: str) -> Recorded:
        """Decide on a frame, and store the decision."""
        ...

    def state(self) -> State:
        """What the operator sees."""
        ...

    def latencies(self) -> Mapping[str, Latency]:
        """How long each stage took, since the process began."""
        ...

    def check_ready(self) -> None:
        """Refusal, 503, while no frame can be scored."""
        ...

    def picture(self, source: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """The newest frame of a source, uint8 [H, W, 3], and its anomaly map, float32 [h, w]; None before the first."""
        ...


@dataclass(eq=False)
class Context:
    """`line` is shared by every thread."""

    line: Line
    settings: Settings
    access: Access
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _text: str = ""
    _then: float = float("-inf")

    def state_text(self) -> str:
        """The state as JSON; the same for everyone who asks within a moment."""
        with self._lock:
            if time.monotonic() - self._then > _FRESH:
                self._text = self.line.state().model_dump_json()
                self._then = time.monotonic()
            return self._text
