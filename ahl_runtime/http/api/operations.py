"""What can be asked: each operation once, as a value from which its route and its page of OpenAPI are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ahl_runtime.core.errors import (
    BundleError,
    Busy,
    EngineError,
    ImageError,
    NoSource,
    RuntimeFault,
    SideFileError,
    SourceError,
    StoreError,
)
from ahl_runtime.http.api.protocol import said
from ahl_runtime.http.door.guard import refused
from ahl_runtime.http.errors import Refusal
from calibration import CalibrationError

JSON = "application/json"
_THREADS = 8

Context = TypeVar("Context")
# The model of a JSON body, or content types, each with its model where it is JSON.
Content = type[BaseModel] | Mapping[str, type[BaseModel] | None]


class RequestModel(BaseModel):
    """A body or a query: what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str


class Nothing(RequestModel):
    """No fields."""


@dataclass(frozen=True, eq=False)
class Call:
    """One request, read and checked. `path`: its parameters; `raw`: the body's bytes; `body`: parsed, if it is JSON."""

    path: Mapping[str, str]
    headers: Headers
    raw: bytes
    query: Any
    body: Any


@dataclass(frozen=True)
class Operation(Generic[Context]):
    """`handler` runs in a thread; what it gives is sent as JSON, or as it is where it is a Response.

    `body`: a model is parsed, content types are handed on as bytes. `refusals`: the statuses that it may refuse with,
    beside those of the door. `public`: asked without a token.
    """

    method: str
    path: str
    handler: Callable[[Context, Call], BaseModel | Response]
    summary: str
    answer: Content
    body: Content | None = None
    query: type[BaseModel] = Nothing
    refusals: Mapping[int, str] = field(default_factory=dict)
    public: bool = False
    success: int = 200


def routes(operations: list[Operation[Context]], context: Context) -> list[Route]:
    """The routes of these operations; GET answers HEAD as well."""
    limiter: list[anyio.CapacityLimiter] = []  # made inside the running loop

    def route(operation: Operation[Context]) -> Route:
        async def endpoint(request: Request) -> Response:
            if not limiter:
                limiter.append(anyio.CapacityLimiter(_THREADS))
            try:
                call = await _read(operation, request)
                return await anyio.to_thread.run_sync(_answer, operation, context, call, limiter=limiter[0])
            except (RuntimeFault, CalibrationError) as error:
                return refused(refusal(error))

        return Route(operation.path, endpoint, methods=[operation.method])

    return [route(operation) for operation in operations]


def refusal(error: RuntimeFault | CalibrationError) -> Refusal:
    """The status of what went wrong: the request's fault, the device's state, or the device's fault."""
    match error:
        case Refusal():
            return error
        case ImageError():
            return Refusal(400, str(error))
        case SideFileError() | StoreError() | BundleError() | SourceError() | CalibrationError():
            return Refusal(409, str(error))
        case NoSource():
            return Refusal(404, str(error))
        case EngineError() | Busy():
            return Refusal(503, str(error))
        case _:
            return Refusal(500, str(error))


async def _read(operation: Operation[Any], request: Request) -> Call:
    try:
        query = operation.query.model_validate(_single(request))
    except ValidationError as error:
        raise Refusal(400, f"query: {said(error)}") from error
    raw = await request.body() if operation.body is not None else b""
    body = None
    if isinstance(operation.body, type):
        given = request.headers.get("content-type", "none").partition(";")[0].strip().lower()
        if given != JSON:  # a form of another site cannot say it
            raise Refusal(415, f"content-type {given[:80]}: expected {JSON}")
        try:
            body = operation.body.model_validate_json(raw)
        except ValidationError as error:
            raise Refusal(400, said(error)) from error
    return Call(request.path_params, request.headers, raw, query, body)


def _single(request: Request) -> dict[str, str]:
    items = request.query_params.multi_items()
    found = dict(items)
    if len(found) != len(items):
        raise Refusal(400, "query: a parameter is there twice")
    return found


def _answer(operation: Operation[Context], context: Context, call: Call) -> Response:
    found = operation.handler(context, call)
    if isinstance(found, Response):
        return found
    return JSONResponse(found.model_dump(mode="json"), operation.success)
