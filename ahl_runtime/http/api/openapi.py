"""The OpenAPI 3.1 document, made from the same operations as the routes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ahl_runtime.http.api.operations import JSON, Content, Operation, Problem

_REF = "#/components/schemas/{model}"
_DOOR = {
    401: "no valid token",
    403: "a request from another site",
    413: "too large",
    421: "this device is not called so",
    429: "too many requests",
}
_READING = {408: "the body took too long", 415: "a content type or encoding that is not taken"}


def document(operations: Sequence[Operation[Any]], version: str) -> dict[str, Any]:
    """The whole document, JSON-able. `version`: the distribution's."""
    models = sorted({m for o in operations for m in _models(o)} | {Problem}, key=lambda m: m.__name__)
    _, schemas = models_json_schema([(m, "validation") for m in models], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ahl-runtime", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _models(operation: Operation[Any]) -> Iterator[type[BaseModel]]:
    for content in (operation.body, operation.answer):
        found = [content] if isinstance(content, type) else (content or {}).values()
        yield from (model for model in found if model is not None)


def _described(operation: Operation[Any]) -> dict[str, Any]:
    statuses = {**_DOOR, **(_READING if operation.body else {}), 400: "malformed", **operation.refusals}
    if operation.public:
        del statuses[401]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{re.sub(r'[^a-z0-9]+', '_', operation.path.lower()).rstrip('_')}",
        "parameters": [*_path(operation.path), *_query(operation.query)],
        "responses": {
            str(operation.success): {"description": "answered", **_content(operation.answer)},
            **{str(s): {"description": why, **_content(Problem)} for s, why in sorted(statuses.items())},
        },
    }
    if operation.body:
        described["requestBody"] = {"required": True, **_content(operation.body)}
    if operation.public:
        described["security"] = [{}]
    return described


def _content(of: Content) -> dict[str, Any]:
    kinds = {JSON: of} if isinstance(of, type) else of
    described = {k: {"schema": {"$ref": _REF.format(model=m.__name__)}} if m else {} for k, m in kinds.items()}
    return {"content": described} if described else {}


def _path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _plain(found)}
        for name, found in schema.get("properties", {}).items()
    ]


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A query cannot say null: what may be null may be left out."""
    kinds = [s for s in schema.get("anyOf", []) if s != {"type": "null"}]
    if len(kinds) == 1:
        schema = {**{k: v for k, v in schema.items() if k not in ("anyOf", "default")}, **kinds[0]}
    return {k: v for k, v in schema.items() if k != "title" and not (k == "default" and v is None)}
