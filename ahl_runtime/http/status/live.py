"""The line as it is now: its state, the newest frame of each source, probes, metrics, and the page's session."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field, SecretStr
from starlette.responses import PlainTextResponse, Response

from ahl_runtime.http.api.problems import JSON, refusals
from ahl_runtime.http.api.routes import ContextDep, JpegResponse, Name, RequestModel, router
from ahl_runtime.http.door.access import COOKIE, SESSION
from ahl_runtime.http.errors import Refusal
from ahl_runtime.http.status import pictures
from ahl_runtime.http.status.metrics import CONTENT_TYPE, exposition
from ahl_runtime.line.monitor.state import ModelState, State

routes = router()


class PictureQuery(RequestModel):
    """`heat`: with the heat map. `of`: any text, which makes the address of each frame a new one."""

    heat: Literal["0", "1"] = "1"
    of: Annotated[str, Field(max_length=100)] = ""


class Token(RequestModel):
    """What the operator enters on the page."""

    token: SecretStr


class Health(BaseModel):
    """The process answers, or a frame can be scored."""

    status: Literal["ok"]


_NOT_READY = {503: "no frame can be scored"}


@routes.get("/healthz", summary="Does the process answer?")
async def health() -> Health:
    return Health(status="ok")


@routes.get("/readyz", summary="Can a frame be scored?", responses=refusals(_NOT_READY))
def ready(context: ContextDep) -> Health:
    context.line.check_ready()
    return Health(status="ok")


@routes.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
def metrics(context: ContextDep) -> Response:
    return Response(exposition(context.line.state(), context.line.latencies()), media_type=CONTENT_TYPE)


@routes.get("/v1/state", summary="The line as the operator's page shows it", response_model=State)
def state(context: ContextDep) -> Response:
    return Response(context.state_text(), media_type=JSON)


@routes.get("/v1/model", summary="The active bundle")
def model(context: ContextDep) -> ModelState:
    return context.line.state().model


@routes.get(
    "/v1/sources/{source}/picture",
    summary="The newest frame of a source, with the heat map over it",
    response_class=JpegResponse,
    responses=refusals({404: "no such source, or no frame yet"}),
)
def picture(context: ContextDep, source: Name, query: Annotated[PictureQuery, Query()]) -> JpegResponse:
    found = context.line.picture(source)
    if found is None:
        raise Refusal(404, f"no frame of a source {source[:80]!r} yet")
    image, anomaly_map = found
    heat = anomaly_map if query.heat == "1" else None
    return JpegResponse(pictures.jpeg(image, heat, context.line.model.map_range))


@routes.post(
    "/v1/session",
    summary="Exchange the token for a cookie, for the operator's page",
    status_code=204,
    responses=refusals({401: "not the token of this device"}),
)
def session(context: ContextDep, body: Token) -> Response:
    access = context.access
    if not access.open and not access.is_token(body.token.get_secret_value()):
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
