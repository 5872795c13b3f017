"""Routes on FastAPI, and what they refuse that FastAPI lets pass.

FastAPI ignores the query of a route without parameters, and takes the last of a repeated parameter: a client would not
notice its mistake. FastAPI calls a body of another content type malformed; 415 says what is wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response

from ahl_runtime.http.api.problems import JSON
from ahl_runtime.http.context import Context
from ahl_runtime.http.errors import Refusal

JPEG = "image/jpeg"
BINARY = "application/octet-stream"

Name = Annotated[str, Path(min_length=1)]


class RequestModel(BaseModel):
    """A JSON body or a query. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JpegResponse(Response):
    """A picture."""

    media_type = JPEG


class StrictRoute(APIRoute):
    """Checks the query and the content type before FastAPI reads the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, behind these checks. Refusal, 400 or 415."""
        handle = super().get_route_handler()
        takes_query, takes_json = bool(self.dependant.query_params), self.body_field is not None

        async def checked(request: Request) -> Response:
            _check_query(request.query_params, takes_query)
            if takes_json:
                _check_json(request.headers)
            return await handle(request)

        return checked


def router() -> APIRouter:
    """A router of strict routes."""
    return APIRouter(route_class=StrictRoute)


async def _context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


ContextDep = Annotated[Context, Depends(_context)]


def operation_id(route: APIRoute) -> str:
    """Method and path, such as `get_v1_decisions_id`: generated clients keep their names when a function is renamed."""
    method = min(route.methods or {"get"}).lower()
    return method + re.sub(r"[^a-z0-9]+", "_", route.path_format.lower()).rstrip("_")


def _check_query(given: QueryParams, known: bool) -> None:
    counts = Counter(name for name, _ in given.multi_items())
    for name, count in counts.items():
        if not known:
            raise Refusal(400, f"query: {name[:80]!r}: this route takes no query parameters")
        if count > 1:
            raise Refusal(400, f"query: {name[:80]!r} is given {count} times")


def _check_json(headers: Headers) -> None:
    given = headers.get("content-type", "none").partition(";")[0].strip().lower()
    if given != JSON:
        raise Refusal(415, f"content-type {given[:80]}: expected {JSON}")
