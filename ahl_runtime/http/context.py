"""What the handlers share: the line as the server sees it, the settings, and the access check."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client.registry import Collector

from ahl_runtime.bundle.device_calibration import Change
from ahl_runtime.core.types import Decision, Outputs
from ahl_runtime.http.api.proposals import Proposals
from ahl_runtime.http.door.access import Access
from ahl_runtime.http.settings import Settings
from ahl_runtime.line.monitor.state import State
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.recalibrate import Proposal

_FRESH = 0.2  # seconds for which one reading of the state serves every client


class Loaded(Protocol):
    """The model that decides. `name`: the stem of the bundle's `path`; `digest`: its own; `engine`: what runs it."""

    @property
    def path(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def map_range(self) -> tuple[float, float]: ...


class StoredDecision(Protocol):
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

    def submit(self, image: NDArray[np.uint8], source: str | None, frame: str, *, file: bytes) -> StoredDecision:
        """Decide on a frame, and store the decision. `file`: what it was decoded from."""
        ...

    def trigger(self, source: str) -> None:
        """Ask a camera for one frame. SourceError where it is not triggered by software."""
        ...

    def state(self) -> State:
        """What the operator sees."""
        ...

    def latencies(self) -> Collector:
        """The histogram `ahl_stage_seconds`: how long each stage took, since the process began."""
        ...

    def check_ready(self) -> None:
        """Refusal, 503, while no frame can be scored."""
        ...

    def picture(self, source: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """The newest frame of a source, uint8 [H, W, 3], and its anomaly map, float32 [h, w]; None before the first."""
        ...

    def keep(self, id: str) -> bool:
        """Keep the image of a recent decision that has none; False if it is no longer in memory."""
        ...

    def rule(self, source: str) -> DecisionRule:
        """The active decision rule of a source."""
        ...

    def propose(
        self, source: str, frames: int, *, alpha: float | None, confidence: float | None, tail: bool
    ) -> Proposal:
        """A calibration from the newest frames of a source, and what it would change. CalibrationError."""
        ...

    def adopt(self, source: str, proposal: Proposal, change: Change) -> str:
        """Activate it; its name."""
        ...

    def undo(self, source: str, change: Change) -> str:
        """Roll back to the calibration before; the name of the one that was active."""
        ...

    def reset_drift(self, source: str) -> None:
        """Restart the drift alarm."""
        ...

    def deploy(self, path: Path) -> None:
        """Replace the bundle, if the new one passes its check."""
        ...


@dataclass(eq=False)
class Context:
    """`line` is shared by every thread."""

    line: Line
    settings: Settings
    access: Access
    proposals: Proposals = field(default_factory=Proposals)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _text: str = ""
    _read: float = float("-inf")

    def state_text(self) -> str:
        """The state as JSON, at most _FRESH seconds old."""
        with self._lock:
            if time.monotonic() - self._read > _FRESH:
                self._text = self.line.state().model_dump_json()
                self._read = time.monotonic()
            return self._text
