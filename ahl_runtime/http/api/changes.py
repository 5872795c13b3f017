"""Changes of how the line decides: preview, activate and roll back a calibration, reset drift, deploy a bundle."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field, StringConstraints

from ahl_runtime.bundle.device_calibration import DEFAULT, Change
from ahl_runtime.http.api.problems import refusals
from ahl_runtime.http.api.routes import ContextDep, RequestModel, router
from ahl_runtime.http.api.v1 import Source, Text
from ahl_runtime.line.monitor.state import ModelState
from ahl_runtime.score.decision import DecisionRule

routes = router()

Who = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Rate = Annotated[float, Field(ge=1e-6, le=1 - 1e-6)]


class OfSource(RequestModel):
    """Whose calibration, or whose drift alarm."""

    source: Source = DEFAULT


class Preview(OfSource):
    """From the newest `frames` of the source, which must all be normal. The active rates hold unless given."""

    frames: Annotated[int, Field(ge=2, le=100_000)] = 300
    alpha: Rate | None = None
    confidence: Rate | None = None
    tail: bool = False


class Audited(OfSource):
    """Who makes the change and why: both go to the audit file."""

    who: Who = "operator"
    why: Text = ""


class Apply(Audited):
    """`preview`: the id of a preview; exactly that calibration is activated."""

    preview: Annotated[str, StringConstraints(max_length=64)]


class Deploy(RequestModel):
    """`bundle`: the name of a file in the folder of the active bundle."""

    bundle: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.ahl$")]


class ActiveCalibration(BaseModel):
    """The active calibration. A threshold is null where nothing is rejected, or held unsure."""

    name: str
    threshold: float | None
    unsure_threshold: float | None
    promise: str
    normals: int


class Side(ActiveCalibration):
    """One side of a preview, and how it decides on the frames."""

    rejected: int
    unsure: int


class Previewed(BaseModel):
    """`old`: active now. `new`: active once `preview` is applied, within ten minutes. `left_out`: unreadable frames."""

    preview: str
    frames: int
    left_out: int
    old: Side
    new: Side


class Applied(BaseModel):
    """The calibration that is active now."""

    name: str


class Undone(BaseModel):
    """The calibration that was rolled back."""

    undone: str


class Reset(BaseModel):
    """The source whose drift alarm starts again."""

    source: str


_SOURCE = {404: "no such source"}
_FAULT = {503: "the engine fails"}


@routes.get("/v1/calibration", summary="The active calibration of a source", responses=refusals(_SOURCE))
def active(context: ContextDep, query: Annotated[OfSource, Query()]) -> ActiveCalibration:
    return ActiveCalibration(**_rule(context.line.rule(query.source)))


@routes.post(
    "/v1/calibration/preview",
    summary="Show what a new calibration would change; nothing is written",
    responses=refusals(_SOURCE | _FAULT | {409: "too few frames for the promise"}),
)
def preview(context: ContextDep, body: Preview) -> Previewed:
    found = context.line.propose(body.source, body.frames, alpha=body.alpha, confidence=body.confidence, tail=body.tail)
    fitted = found.new
    new: dict[str, Any] = {
        "name": "preview",
        "threshold": _finite(fitted.threshold),
        "unsure_threshold": _finite(fitted.unsure_threshold),
        "promise": fitted.promise.sentence,
        "normals": fitted.n,
    }
    return Previewed(
        preview=context.proposals.keep(body.source, found),
        frames=fitted.n,
        left_out=len(found.left_out),
        old=Side(**_rule(found.old), rejected=found.by_old["reject"], unsure=found.by_old["unsure"]),
        new=Side(**new, rejected=found.by_new["reject"], unsure=found.by_new["unsure"]),
    )


@routes.post(
    "/v1/calibration/apply",
    summary="Activate a previewed calibration",
    responses=refusals(_SOURCE | {409: "no such preview, or the calibration cannot be written"}),
)
def apply(context: ContextDep, body: Apply) -> Applied:
    proposal = context.proposals.take(body.preview, body.source)
    return Applied(name=context.line.adopt(body.source, proposal, Change(body.who, body.why, {})))


@routes.post(
    "/v1/calibration/undo",
    summary="Roll back to the calibration before the active one",
    responses=refusals(_SOURCE | {409: "no calibration to roll back"}),
)
def undo(context: ContextDep, body: Audited) -> Undone:
    return Undone(undone=context.line.undo(body.source, Change(body.who, body.why, {})))


@routes.post("/v1/drift/reset", summary="Restart the drift alarm", responses=refusals(_SOURCE))
def reset_drift(context: ContextDep, body: OfSource) -> Reset:
    context.line.reset_drift(body.source)
    return Reset(source=body.source)


@routes.post(
    "/v1/deploy",
    summary="Load a bundle, check it on its reference frames, and activate it",
    responses=refusals(_FAULT | {409: "refused: missing, damaged, unsigned or failing its check"}),
)
def deploy(context: ContextDep, body: Deploy) -> ModelState:
    context.line.deploy(context.line.model.path.with_name(body.bundle))
    return context.line.state().model


def _rule(rule: DecisionRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "threshold": _finite(rule.threshold),
        "unsure_threshold": _finite(rule.unsure_threshold),
        "promise": rule.promise,
        "normals": rule.calibration.n,
    }


def _finite(threshold: float) -> float | None:
    return threshold if math.isfinite(threshold) else None
