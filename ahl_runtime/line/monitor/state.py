"""The state of a line as one JSON-able value: for the page, the metrics and the HTTP API."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ahl_runtime.core.types import Verdict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelState(_Frozen):
    """The active bundle. `digest`: SHA-256 of its manifest."""

    name: str
    digest: str
    engine: str


class DriftState(_Frozen):
    """`off`: there is no drift alarm. `said`: one sentence for the operator."""

    state: Literal["off", "calm", "alarm"]
    said: str


class Point(_Frozen):
    """A decision on the score strip."""

    id: str
    score: float
    verdict: Verdict


class Latest(Point):
    """The newest decision. A threshold is null if no score is rejected, or none is unsure."""

    threshold: float | None
    unsure_threshold: float | None
    p_value: float
    captured: str | None


class SourceState(_Frozen):
    """A source since the process started. `state`: "live", or one word for the problem; `said`: one sentence."""

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


class State(_Frozen):
    """The whole line. `rejects`: the rejects of all sources. `faults`: sentences for the operator."""

    model: ModelState
    rejects: int
    faults: list[str]
    sources: list[SourceState]
