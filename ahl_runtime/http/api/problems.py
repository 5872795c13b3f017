"""Requests that are not answered: the error of each, its status, and how the OpenAPI document shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ahl_runtime.core.errors import RuntimeFault
from ahl_runtime.http.errors import Refusal, refusal, refused
from calibration import CalibrationError

JSON = "application/json"
Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str


def refusals(reasons: Mapping[int, str]) -> Responses:
    """Statuses for the OpenAPI document, each with its reason."""
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": reason, "content": content} for status, reason in sorted(reasons.items())}


def reasons(errors: Sequence[ErrorDetails]) -> str:
    """Every wrong field and why, without the values that were sent."""
    found = [f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in errors[:8]]
    return "; ".join(found)[:1000]


async def on_fault(request: Request, error: Exception) -> Response:
    """The response to an error of the package's trees."""
    if not isinstance(error, RuntimeFault | CalibrationError):
        raise error
    return refused(refusal(error))


async def on_invalid(request: Request, error: Exception) -> Response:
    """The response to a query or a body that its model refuses: 400."""
    if not isinstance(error, RequestValidationError):
        raise error
    return refused(Refusal(400, reasons([_placed(e) for e in error.errors()])))


async def on_http(request: Request, error: Exception) -> Response:
    """The response to what starlette and FastAPI refuse: 404, 405, or 400 for a body that is not JSON."""
    if not isinstance(error, HTTPException):
        raise error
    reason = f"the body: not JSON: {error.__cause__}" if error.status_code == 400 else error.detail
    return JSONResponse({"error": reason}, error.status_code, error.headers)


async def on_bug(request: Request, error: Exception) -> Response:
    """The response to any other exception; the server logs its traceback."""
    return JSONResponse({"error": "the server failed on this request: see its log"}, 500)


def _placed(error: ErrorDetails) -> ErrorDetails:
    """The same error with its place as a reader of the API names it: `query.limit`, but `who` for a key of the body."""
    where, *inside = error["loc"]
    if error["type"] == "json_invalid":
        return {**error, "loc": (), "msg": f"not JSON at character {inside[0]}: {error['ctx']['error']}"}
    return error if where == "query" else {**error, "loc": tuple(inside)}
