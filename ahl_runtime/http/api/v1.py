"""Scoring an image, reading decisions back, and marking them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from ahl_runtime.core.decode import decode
from ahl_runtime.core.types import Verdict
from ahl_runtime.http.api import history
from ahl_runtime.http.api import uploads as images
from ahl_runtime.http.api.operations import Call, Operation, RequestModel
from ahl_runtime.http.context import Context
from ahl_runtime.http.errors import Refusal
from ahl_runtime.http.status import pictures
from ahl_runtime.line.store.store import Store

JPEG = "image/jpeg"

Source = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, StringConstraints(max_length=500)]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]


class ScoreQuery(RequestModel):
    """`source`: whose thresholds decide. `frame`: the caller's own name for it."""

    source: Source | None = None
    frame: Annotated[str, StringConstraints(max_length=200)] = ""


class HeatQuery(RequestModel):
    """`heat`: with the heat map, for which the image is scored again."""

    heat: Literal["0", "1"] = "1"


class ScoreResponse(BaseModel):
    """A decision, as it was stored. `threshold`: null where nothing is rejected."""

    id: str
    frame: str
    source: str
    verdict: Verdict
    score: float
    p_value: float
    threshold: float | None
    promise: str
    calibration: str
    bundle: str


class Triggered(BaseModel):
    """The camera that was asked for a frame; its decision comes as any other's."""

    source: str


class PageQuery(RequestModel):
    """`before`: the id of the last decision of the page before."""

    limit: Annotated[int, Field(ge=1, le=500)] = 50
    before: Id | None = None
    verdict: Verdict | None = None
    source: Source | None = None


class Row(BaseModel):
    """A stored decision and its newest mark (null: not marked)."""

    id: str
    decided: str
    frame: str
    source: str
    captured: str | None
    score: float
    p_value: float
    threshold: float | None
    verdict: Verdict
    promise: str
    bundle: str
    calibration: str
    engine: str
    label: Literal["good", "anomaly"] | None
    note: str | None
    who: str | None
    marked: str | None


class Page(BaseModel):
    """The newest first. `next`: give it as `before` for the page after this; null: there is none."""

    decisions: list[Row]
    next: str | None


class Mark(RequestModel):
    """`right` and `wrong` are said of a pass or a reject, `good` and `anomaly` of any decision."""

    word: Literal["right", "wrong", "good", "anomaly"]
    note: Text = ""
    who: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "operator"


class Marked(BaseModel):
    """What the image is now taken for."""

    id: str
    label: Literal["good", "anomaly"]


def score(context: Context, call: Call) -> ScoreResponse:
    file = images.file(call.raw, call.headers.get("content-type", ""))
    pixels = decode(file, max_pixels=context.settings.max_pixels)
    recorded = context.line.submit(pixels, call.query.source, call.query.frame, file=file)
    decision = recorded.decision
    return ScoreResponse(
        id=recorded.id,
        frame=decision.frame,
        source=decision.source,
        verdict=decision.verdict,
        score=decision.score,
        p_value=decision.p_value,
        threshold=decision.threshold if math.isfinite(decision.threshold) else None,
        promise=decision.promise,
        calibration=decision.calibration,
        bundle=decision.bundle,
    )


def trigger(context: Context, call: Call) -> Triggered:
    context.line.trigger(call.path["name"])
    return Triggered(source=call.path["name"])


def decisions(context: Context, call: Call) -> Page:
    asked: PageQuery = call.query
    found = history.page(
        context.line.store_path, asked.limit + 1, before=asked.before, verdict=asked.verdict, source=asked.source
    )
    rows = [Row.model_validate(row) for row in found[: asked.limit]]
    return Page(decisions=rows, next=rows[-1].id if len(found) > asked.limit else None)


def decision(context: Context, call: Call) -> Row:
    return Row.model_validate(_stored(context, call))


def picture(context: Context, call: Call) -> Response:
    """The image; with its heat map it is scored again, since maps are not stored."""
    row = _stored(context, call)
    pixels = decode(_image(context, row), max_pixels=context.settings.max_pixels)
    anomaly_map = context.line.infer(pixels[np.newaxis]).anomaly_map[0] if call.query.heat == "1" else None
    return Response(pictures.jpeg(pixels, anomaly_map, context.line.model.map_range), media_type=JPEG)


def _image(context: Context, row: dict[str, Any]) -> bytes:
    """Just the bytes that were decided on: those that a mark kept, or the file, if it was not changed since."""
    kept = history.kept_image(context.line.store_path, row["sha256"])
    if kept is not None:
        return kept
    try:
        body = Path(row["image"]).read_bytes()
    except OSError:
        body = b""
    if hashlib.sha256(body).hexdigest() != row["sha256"]:
        raise Refusal(404, "the image of this decision is not kept, or no longer")
    return body


def mark(context: Context, call: Call) -> Marked:
    row = _stored(context, call)
    said: Mark = call.body
    if not row["image"]:
        context.line.keep(row["id"])
    with Store(context.line.store_path) as store:
        return Marked(id=row["id"], label=store.mark(row["id"], said.word, said.who, said.note))


def _stored(context: Context, call: Call) -> dict[str, Any]:
    row = history.one(context.line.store_path, call.path["id"])
    if row is None:
        raise Refusal(404, f"no decision {call.path['id'][:80]!r}")
    return row


_UNKNOWN = {404: "no such decision"}

OPERATIONS: list[Operation[Context]] = [
    Operation(
        "POST",
        "/v1/score",
        score,
        "Decide on an image, and store the decision",
        ScoreResponse,
        body=dict.fromkeys(images.TYPES),
        query=ScoreQuery,
        refusals={404: "no such source", 409: "it cannot be stored", 503: "the line is too busy, or stops"},
    ),
    Operation(
        "POST",
        "/v1/sources/{name}/trigger",
        trigger,
        "Ask a camera for one frame",
        Triggered,
        refusals={404: "no such source", 409: "not triggered by software", 503: "its camera is gone"},
        success=202,
    ),
    Operation(
        "GET",
        "/v1/decisions",
        decisions,
        "Stored decisions, the newest first",
        Page,
        query=PageQuery,
        refusals={409: "no such decision to go on from"},
    ),
    Operation("GET", "/v1/decisions/{id}", decision, "One decision", Row, refusals=_UNKNOWN),
    Operation(
        "GET",
        "/v1/decisions/{id}/picture",
        picture,
        "Its image, with the heat map",
        {JPEG: None},
        query=HeatQuery,
        refusals=_UNKNOWN | {503: "it cannot be scored"},
    ),
    Operation(
        "POST",
        "/v1/decisions/{id}/mark",
        mark,
        "Say what the image is",
        Marked,
        body=Mark,
        refusals=_UNKNOWN | {409: "not markable: unsure is neither right nor wrong, or its image is gone"},
    ),
]
