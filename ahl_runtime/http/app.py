"""The whole application: the door, the operations, the stream of events and the page's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ahl_runtime.http.api import changes, openapi, v1, v2
from ahl_runtime.http.api.operations import Operation, routes
from ahl_runtime.http.context import Context, Line
from ahl_runtime.http.door.access import Access
from ahl_runtime.http.door.guard import PUBLIC_FILES, Guard
from ahl_runtime.http.door.rate import Rate
from ahl_runtime.http.settings import Settings, check_exposure
from ahl_runtime.http.status import live
from ahl_runtime.http.status.events import Events

OPERATIONS: list[Operation[Context]] = [*v2.OPERATIONS, *v1.OPERATIONS, *live.OPERATIONS, *changes.OPERATIONS]
_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class App:
    """`asgi`: to be served. `stop`: ends what streams, before the server stops."""

    asgi: ASGIApp
    stop: Callable[[], None]


def build(line: Line, settings: Settings) -> App:
    """The application around a line. ServerError if others could reach it unasked, or its token cannot be read."""
    token = settings.token()
    check_exposure(settings, token)
    access = Access(token)
    context = Context(line, settings, access)
    events = Events(context.state_text)
    described = openapi.document(OPERATIONS, version("ahl"))

    async def document(request: Request) -> Response:
        return JSONResponse(described)

    inner = Starlette(
        routes=[
            *routes(OPERATIONS, context),
            Route("/openapi.json", document),
            Route("/v1/events", events.endpoint),
            *_page(),
        ],
        exception_handlers={HTTPException: _said, Exception: _broken},
    )
    inner.router.redirect_slashes = False
    guard = Guard(inner, access, Rate(settings.rate), settings.names, settings.max_body, settings.at_once)
    return App(guard, events.stop)


def _page() -> list[Route]:
    """The page's few files, read once: nothing of the disk can be asked for by path."""
    folder = resources.files("ahl_runtime.http") / "page"

    def route(path: str, body: bytes, kind: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return Response(body, media_type=kind)

        return Route(path, endpoint)

    files = {f.name: f.read_bytes() for f in folder.iterdir() if f.name.rpartition(".")[2] in _TYPES}
    served = [
        route(f"{PUBLIC_FILES}{name}", body, _TYPES[name.rpartition(".")[2]])
        for name, body in files.items()
        if name != "index.html"
    ]
    return [route("/", files["index.html"], "text/html"), *served]


async def _said(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "a fault of the server: see its log"}, 500)
