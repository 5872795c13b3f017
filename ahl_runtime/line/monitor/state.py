"""What the page, the metrics and whoever asks are told of the line: one value, as JSON says it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ahl_runtime.core.types import Verdict


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelState(_Told):
    """The bundle that decides. `digest`: SHA-256 of its manifest."""

    name: str
    digest: str
    engine: str


class DriftState(_Told):
    """`off`: nothing monitors. `said`: one sentence for the operator."""

    state: Literal["off", "calm", "alarm"]
    said: str


class Point(_Told):
    """A decision on the score strip."""

    id: str
    score: float
    verdict: Verdict


class Latest(Point):
    """The newest decision. A threshold is null where nothing is rejected, or held unsure."""

    threshold: float | None
    unsure_threshold: float | None
    p_value: float
    captured: str | None


class SourceState(_Told):
    """A camera or a folder since the process began. `state`: "live", or why not in a word; `said`: a sentence."""

    name: str
    state: str
    said: str
    frames: int
    passed: int
    rejected: int
    unsure: int
    dropped: int
    queue: int
    drift: DriftState
    latest: Latest | None
    recent: list[Point]


class State(_Told):
    """The whole line. `rejects`: of all sources; `faults`: sentences for the operator."""

    model: ModelState
    rejects: int
    faults: list[str]
    sources: list[SourceState]
