"""The line as it is now: its state, the newest frame of each source, probes, metrics, and the page's session."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr
from starlette.responses import Response

from ahl_runtime.http.api.operations import JSON, Call, Operation, RequestModel
from ahl_runtime.http.context import Context
from ahl_runtime.http.door.access import COOKIE, SESSION
from ahl_runtime.http.errors import Refusal
from ahl_runtime.http.status import pictures
from ahl_runtime.http.status.metrics import CONTENT_TYPE, exposition
from ahl_runtime.line.monitor.state import ModelState, State

JPEG = "image/jpeg"


class PictureQuery(RequestModel):
    """`heat`: with the heat map. `of`: anything, so that an address is new for each frame."""

    heat: Literal["0", "1"] = "1"
    of: Annotated[str, Field(max_length=100)] = ""


class Token(RequestModel):
    """What the operator types."""

    token: SecretStr


class Health(BaseModel):
    """The process answers; or a frame can be scored."""

    status: Literal["ok"]


def health(context: Context, call: Call) -> Health:
    return Health(status="ok")


def ready(context: Context, call: Call) -> Health:
    context.line.check_ready()
    return Health(status="ok")


def metrics(context: Context, call: Call) -> Response:
    return Response(exposition(context.line.state(), context.line.latencies()), media_type=CONTENT_TYPE)


def state(context: Context, call: Call) -> Response:
    return Response(context.state_text(), media_type=JSON)


def model(context: Context, call: Call) -> ModelState:
    return context.line.state().model


def picture(context: Context, call: Call) -> Response:
    source = call.path["source"]
    found = context.line.picture(source)
    if found is None:
        raise Refusal(404, f"no frame of a source {source[:80]!r} yet")
    image, anomaly_map = found
    heat = anomaly_map if call.query.heat == "1" else None
    return Response(pictures.jpeg(image, heat, context.line.model.map_range), media_type=JPEG)


def session(context: Context, call: Call) -> Response:
    access = context.access
    if not access.open and not access.is_token(call.body.token.get_secret_value()):
        raise Refusal(401, "this is not the token of this device")
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        access.session(),
        max_age=SESSION,
        httponly=True,
        samesite="strict",
        secure=context.settings.certificate is not None,
    )
    return response


_NOT_READY = {503: "no frame can be scored"}

OPERATIONS: list[Operation[Context]] = [
    Operation("GET", "/healthz", health, "Does the process answer?", Health, public=True),
    Operation("GET", "/readyz", ready, "Can a frame be scored?", Health, refusals=_NOT_READY, public=True),
    Operation("GET", "/metrics", metrics, "For Prometheus", {"text/plain": None}),
    Operation("GET", "/v1/state", state, "The line as the operator's page shows it", State),
    Operation("GET", "/v1/model", model, "The bundle that decides", ModelState),
    Operation(
        "GET",
        "/v1/sources/{source}/picture",
        picture,
        "The newest frame of a source, with the heat map over it",
        {JPEG: None},
        query=PictureQuery,
        refusals={404: "no such source, or no frame yet"},
    ),
    Operation(
        "POST",
        "/v1/session",
        session,
        "A cookie for the token, for the operator's page",
        {},
        body=Token,
        refusals={401: "another token"},
        public=True,
        success=204,
    ),
]
