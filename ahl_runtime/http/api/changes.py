"""What changes how the line decides: calibrations previewed, put in force, undone; drift reset; a bundle deployed."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from ahl_runtime.bundle.device_calibration import DEFAULT, Change
from ahl_runtime.http.api.operations import Call, Operation, RequestModel
from ahl_runtime.http.api.v1 import Source, Text
from ahl_runtime.http.context import Context
from ahl_runtime.line.monitor.state import ModelState
from ahl_runtime.score.decision import DecisionRule

Who = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Rate = Annotated[float, Field(ge=1e-6, le=1 - 1e-6)]


class OfSource(RequestModel):
    """Whose."""

    source: Source = DEFAULT


class Preview(OfSource):
    """From the newest `frames` of the source, which must all be normal. The rates in force hold unless given."""

    frames: Annotated[int, Field(ge=2, le=100_000)] = 300
    alpha: Rate | None = None
    confidence: Rate | None = None
    tail: bool = False


class Said(OfSource):
    """Who changes it and why, for the audit."""

    who: Who = "operator"
    why: Text = ""


class Apply(Said):
    """`preview`: the id of what was shown; just that is put in force."""

    preview: Annotated[str, StringConstraints(max_length=64)]


class Deploy(RequestModel):
    """`bundle`: the name of a file in the folder of the bundle in force."""

    bundle: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.ahl$")]


class ActiveCalibration(BaseModel):
    """What decides. A threshold is null where nothing is rejected, or held unsure."""

    name: str
    threshold: float | None
    unsure_threshold: float | None
    promise: str
    normals: int


class Side(ActiveCalibration):
    """One side of a preview, and what it makes of the frames."""

    rejected: int
    unsure: int


class Previewed(BaseModel):
    """`old`: in force. `new`: what applying `preview` puts in force, for ten minutes. `left_out`: unreadable frames."""

    preview: str
    frames: int
    left_out: int
    old: Side
    new: Side


class Applied(BaseModel):
    """What is in force now."""

    name: str


class Undone(BaseModel):
    """What is no longer in force."""

    undone: str


class Done(BaseModel):
    """It is done."""

    source: str


def in_force(context: Context, call: Call) -> ActiveCalibration:
    return ActiveCalibration(**_rule(context.line.rule(call.query.source)))


def preview(context: Context, call: Call) -> Previewed:
    asked: Preview = call.body
    found = context.line.propose(
        asked.source, asked.frames, alpha=asked.alpha, confidence=asked.confidence, tail=asked.tail
    )
    fitted = found.new
    new: dict[str, Any] = {
        "name": "preview",
        "threshold": _finite(fitted.threshold),
        "unsure_threshold": _finite(fitted.unsure_threshold),
        "promise": fitted.promise.sentence,
        "normals": fitted.n,
    }
    return Previewed(
        preview=context.proposals.keep(asked.source, found),
        frames=fitted.n,
        left_out=len(found.left_out),
        old=Side(**_rule(found.old), rejected=found.by_old["reject"], unsure=found.by_old["unsure"]),
        new=Side(**new, rejected=found.by_new["reject"], unsure=found.by_new["unsure"]),
    )


def apply(context: Context, call: Call) -> Applied:
    asked: Apply = call.body
    proposal = context.proposals.take(asked.preview, asked.source)
    return Applied(name=context.line.adopt(asked.source, proposal, Change(asked.who, asked.why, {})))


def undo(context: Context, call: Call) -> Undone:
    asked: Said = call.body
    return Undone(undone=context.line.undo(asked.source, Change(asked.who, asked.why, {})))


def reset_drift(context: Context, call: Call) -> Done:
    context.line.reset_drift(call.body.source)
    return Done(source=call.body.source)


def deploy(context: Context, call: Call) -> ModelState:
    context.line.deploy(context.line.model.path.with_name(call.body.bundle))
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


_SOURCE = {404: "no such source"}
_FAULT = {503: "the engine fails"}

OPERATIONS: list[Operation[Context]] = [
    Operation(
        "GET",
        "/v1/calibration",
        in_force,
        "What decides for a source",
        ActiveCalibration,
        query=OfSource,
        refusals=_SOURCE,
    ),
    Operation(
        "POST",
        "/v1/calibration/preview",
        preview,
        "What a new calibration would change; nothing is written",
        Previewed,
        body=Preview,
        refusals=_SOURCE | _FAULT | {409: "too few frames for the promise"},
    ),
    Operation(
        "POST",
        "/v1/calibration/apply",
        apply,
        "Put a previewed calibration in force",
        Applied,
        body=Apply,
        refusals=_SOURCE | {409: "no such preview, or it cannot be written"},
    ),
    Operation(
        "POST",
        "/v1/calibration/undo",
        undo,
        "Go back to the calibration before the one in force",
        Undone,
        body=Said,
        refusals=_SOURCE | {409: "none to undo"},
    ),
    Operation("POST", "/v1/drift/reset", reset_drift, "Restart the drift alarm", Done, body=OfSource, refusals=_SOURCE),
    Operation(
        "POST",
        "/v1/deploy",
        deploy,
        "Swap the bundle: loaded, checked on its reference frames, then in force",
        ModelState,
        body=Deploy,
        refusals=_FAULT | {409: "refused: missing, damaged, unsigned or failing its check"},
    ),
]
