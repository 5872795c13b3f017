"""The whole application: the door, the routes, the stream of events and the page's files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ahl_runtime.core.errors import RuntimeFault
from ahl_runtime.http.api import changes, openapi, problems, v1, v2
from ahl_runtime.http.api.routes import operation_id
from ahl_runtime.http.context import Context, Line
from ahl_runtime.http.door.access import Access
from ahl_runtime.http.door.guard import PUBLIC_FILES, Guard
from ahl_runtime.http.door.rate import Rate
from ahl_runtime.http.settings import Settings, check_exposure
from ahl_runtime.http.status import live
from ahl_runtime.http.status.events import Events
from calibration import CalibrationError

_THREADS = 8  # that run handlers
_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class App:
    """`asgi`: to be served. `stop`: ends the streams, before the server stops."""

    asgi: ASGIApp
    stop: Callable[[], None]


def build(line: Line, settings: Settings) -> App:
    """The application around a line. ServerError if others can reach it without a token, or its token is unreadable."""
    token = settings.token()
    check_exposure(settings, token)
    access = Access(token)
    context = Context(line, settings, access)
    events = Events(context.state_text)
    app = _application(context)
    app.add_route("/v1/events", events.endpoint)
    _add_page(app)
    guard = Guard(_head_as_get(app), access, Rate(settings.rate), settings.names, settings.max_body, settings.at_once)
    return App(guard, events.stop)


def _application(context: Context) -> FastAPI:
    """The routes and the responses to what goes wrong; no pages of documentation: they load scripts from elsewhere."""
    app = FastAPI(
        title="ahl-runtime",
        version=version("ahl"),
        license_info={"name": "Apache-2.0"},
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        exception_handlers={
            RuntimeFault: problems.on_fault,
            CalibrationError: problems.on_fault,
            RequestValidationError: problems.on_invalid,
            HTTPException: problems.on_http,
            Exception: problems.on_bug,
        },
        lifespan=_limit_threads,
        telemetry=TelemetryConfig(tracing=False, metrics=False, logs=False),  # nothing is sent
    )
    app.state.context = context
    for routes in (v2.routes, v1.routes, live.routes, changes.routes):
        app.include_router(routes)

    @cache
    def described() -> dict[str, Any]:
        return openapi.document(app)

    @app.get("/openapi.json", include_in_schema=False)
    def document() -> JSONResponse:
        return JSONResponse(described())

    return app


@asynccontextmanager
async def _limit_threads(app: FastAPI) -> AsyncIterator[None]:
    """Handlers share a few threads: more would only wait for the line."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    yield


def _head_as_get(app: ASGIApp) -> ASGIApp:
    """HEAD is answered as GET: FastAPI refuses it, and uvicorn leaves the body out by itself."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return answer


def _add_page(app: FastAPI) -> None:
    """The page's few files, read once: no path of a request reaches the disk."""
    for file in (resources.files("ahl_runtime.http") / "page").iterdir():
        if kind := _TYPES.get(file.name.rpartition(".")[2]):
            path = "/" if file.name == "index.html" else f"{PUBLIC_FILES}{file.name}"
            app.add_route(path, _file(file.read_bytes(), kind))


def _file(body: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return Response(body, media_type=kind)

    return endpoint
