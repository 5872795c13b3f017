"""Scoring an image, reading decisions back, and marking them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, Query
from pydantic import BaseModel, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from ahl_runtime.core.decode import decode
from ahl_runtime.core.types import Verdict
from ahl_runtime.http.api import history, images
from ahl_runtime.http.api.problems import refusals
from ahl_runtime.http.api.routes import ContextDep, JpegResponse, Name, RequestModel, router
from ahl_runtime.http.context import Context
from ahl_runtime.http.errors import Refusal
from ahl_runtime.http.status import pictures
from ahl_runtime.line.store.store import Store

routes = router()

Source = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, StringConstraints(max_length=500)]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]


class ScoreQuery(RequestModel):
    """`source`: the source whose thresholds decide. `frame`: the client's own name for the image."""

    source: Source | SkipJsonSchema[None] = None
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
    """The camera that takes a frame; its decision is stored like any other."""

    source: str


class PageQuery(RequestModel):
    """`before`: the id of the last decision of the previous page."""

    limit: Annotated[int, Field(ge=1, le=500)] = 50
    before: Id | SkipJsonSchema[None] = None
    verdict: Verdict | SkipJsonSchema[None] = None
    source: Source | SkipJsonSchema[None] = None


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
    """The newest first. `next`: the `before` of the following page; null on the last page."""

    decisions: list[Row]
    next: str | None


class Mark(RequestModel):
    """`right` and `wrong` judge a pass or a reject; `good` and `anomaly` apply to any decision."""

    word: Literal["right", "wrong", "good", "anomaly"]
    note: Text = ""
    who: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "operator"


class Marked(BaseModel):
    """The label that the image has now."""

    id: str
    label: Literal["good", "anomaly"]


_UNKNOWN = {404: "no such decision"}


@routes.post(
    "/v1/score",
    summary="Decide on an image and store the decision",
    responses=refusals({404: "no such source", 409: "it cannot be stored", 503: "the line is too busy, or stops"}),
    openapi_extra=images.BODY,
)
def score(context: ContextDep, query: Annotated[ScoreQuery, Query()], file: images.ImageFile) -> ScoreResponse:
    pixels = decode(file, max_pixels=context.settings.max_pixels)
    stored = context.line.submit(pixels, query.source, query.frame, file=file)
    decision = stored.decision
    return ScoreResponse(
        id=stored.id,
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


@routes.post(
    "/v1/sources/{name}/trigger",
    summary="Ask a camera for one frame",
    status_code=202,
    responses=refusals({404: "no such source", 409: "not triggered by software", 503: "its camera is gone"}),
)
def trigger(context: ContextDep, name: Name) -> Triggered:
    context.line.trigger(name)
    return Triggered(source=name)


@routes.get(
    "/v1/decisions",
    summary="Stored decisions, the newest first",
    responses=refusals({409: "no decision has the id `before`"}),
)
def decisions(context: ContextDep, query: Annotated[PageQuery, Query()]) -> Page:
    found = history.page(
        context.line.store_path, query.limit + 1, before=query.before, verdict=query.verdict, source=query.source
    )
    rows = [Row.model_validate(row) for row in found[: query.limit]]
    return Page(decisions=rows, next=rows[-1].id if len(found) > query.limit else None)


def _stored(context: ContextDep, id: Name) -> dict[str, Any]:
    """The decision that the path names, read in a thread. Refusal, 404."""
    row = history.one(context.line.store_path, id)
    if row is None:
        raise Refusal(404, f"no decision {id[:80]!r}")
    return row


Stored = Annotated[dict[str, Any], Depends(_stored)]


@routes.get("/v1/decisions/{id}", summary="One decision", responses=refusals(_UNKNOWN))
def decision(row: Stored) -> Row:
    return Row.model_validate(row)


@routes.get(
    "/v1/decisions/{id}/picture",
    summary="The image of a decision, with the heat map",
    response_class=JpegResponse,
    responses=refusals(_UNKNOWN | {503: "it cannot be scored"}),
)
def picture(context: ContextDep, row: Stored, query: Annotated[HeatQuery, Query()]) -> JpegResponse:
    """Maps are not stored: with its heat map, the image is scored again."""
    pixels = decode(_image(context, row), max_pixels=context.settings.max_pixels)
    anomaly_map = context.line.infer(pixels[np.newaxis]).anomaly_map[0] if query.heat == "1" else None
    return JpegResponse(pictures.jpeg(pixels, anomaly_map, context.line.model.map_range))


@routes.post(
    "/v1/decisions/{id}/mark",
    summary="Mark what the image of a decision shows",
    responses=refusals(_UNKNOWN | {409: "not markable: unsure is neither right nor wrong, or its image is gone"}),
)
def mark(context: ContextDep, row: Stored, body: Mark) -> Marked:
    if not row["image"]:
        context.line.keep(row["id"])
    with Store(context.line.store_path) as store:
        return Marked(id=row["id"], label=store.mark(row["id"], body.word, body.who, body.note))


def _image(context: Context, row: dict[str, Any]) -> bytes:
    """The bytes that were decided on: those that a mark kept, or the file if it did not change since. Refusal, 404."""
    kept = history.kept_image(context.line.store_path, row["sha256"])
    if kept is not None:
        return kept
    try:
        body = Path(row["image"]).read_bytes()
    except OSError:
        body = b""
    if hashlib.sha256(body).hexdigest() != row["sha256"]:
        raise Refusal(404, "the image of this decision is not kept, or changed since")
    return body
