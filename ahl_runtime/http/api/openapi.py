"""The OpenAPI 3.1 document: FastAPI's, with what the door adds to every route."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from ahl_runtime.http.api.problems import Problem, refusals
from ahl_runtime.http.api.protocol import InferRequest
from ahl_runtime.http.door.guard import is_public

_DOOR = refusals(
    {
        400: "the request is malformed",
        401: "no valid token",
        403: "a request from another site",
        413: "too large",
        421: "this device does not have this name",
        429: "too many requests",
    }
)
_BODY = refusals({408: "the body took too long", 415: "this content type or encoding is not supported"})
_FASTAPI = "HTTPValidationError", "ValidationError"  # its own form of an error, which is never sent


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document, JSON-able."""
    made = get_openapi(
        title=app.title, version=app.version, license_info=app.license_info, routes=app.routes, openapi_version="3.1.0"
    )
    for path, methods in made["paths"].items():
        for operation in methods.values():
            _describe(operation, is_public(path))
    schemas = made["components"]["schemas"]
    for name in _FASTAPI:
        schemas.pop(name, None)
    schemas.update(_schemas())
    made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    made["security"] = [{"token": []}, {}]
    return made


def _describe(operation: dict[str, Any], public: bool) -> None:
    """Add what the door refuses; take out 422, which FastAPI assumes and is 400 here."""
    found = {str(k): v for k, v in {**_DOOR, **(_BODY if "requestBody" in operation else {})}.items()}
    if public:
        operation["security"] = [{}]
        del found["401"]
    own = {status: response for status, response in operation["responses"].items() if status != "422"}
    operation["responses"] = dict(sorted({**found, **own}.items()))


def _schemas() -> dict[str, Any]:
    """The models that no route takes as they are: FastAPI does not list them."""
    _, made = models_json_schema(
        [(Problem, "validation"), (InferRequest, "validation")], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = made["$defs"]
    return schemas
