"""The Open Inference Protocol's routes: probes, metadata and inference. Nothing here decides or is stored."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel, JsonValue
from starlette.requests import Request
from starlette.responses import Response

from ahl_runtime.http.api import protocol
from ahl_runtime.http.api.problems import JSON, refusals
from ahl_runtime.http.api.routes import BINARY, ContextDep, Name, router
from ahl_runtime.http.context import Loaded
from ahl_runtime.http.errors import Refusal

routes = router()
models = router()  # with and without a version in the path


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """The model is loaded."""

    name: str
    ready: bool


class About(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class Tensor(BaseModel):
    """A tensor of the model; -1 is a free dimension."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The bundle that is loaded. Its version is the first 12 digits of its digest."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class InferResponse(BaseModel):
    """The graph's outputs."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[dict[str, JsonValue]]


_UNKNOWN = {404: "no such model"}
_NOT_READY = {503: "not ready: no frame can be scored"}
_INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/InferRequest"}}, BINARY: {}},
    }
}


@routes.get("/v2/health/live", summary="Does the process answer?")
async def live() -> Live:
    return Live(live=True)


@routes.get("/v2/health/ready", summary="Can a frame be scored?", responses=refusals(_NOT_READY))
def ready(context: ContextDep) -> Live:
    context.line.check_ready()
    return Live(live=True)


@routes.get("/v2", summary="The server and its extensions")
async def about() -> About:
    return About(name="ahl-runtime", version=version("ahl"), extensions=["binary_tensor_data"])


def _model(context: ContextDep, name: Name) -> Loaded:
    """The model, if it has the name in the path. In a thread: a line that deploys may hold it back. Refusal, 404."""
    found = context.line.model
    if name != found.name:
        raise Refusal(404, f"no model {name[:80]!r}: this line runs {found.name!r}")
    return found


def _check_version(context: ContextDep, version: Name) -> None:
    """Refusal, 404, if the path has another version than the model."""
    if version != (own := _version(context.line.model)):
        raise Refusal(404, f"no version {version[:80]!r} of {context.line.model.name!r}: this line runs {own}")


async def _body(request: Request) -> bytes:
    return await request.body()


ModelDep = Annotated[Loaded, Depends(_model)]


@models.get("", summary="The model's tensors", responses=refusals(_UNKNOWN))
def model(model: ModelDep) -> ModelMetadata:
    return ModelMetadata.model_validate(protocol.metadata(model.name, _version(model), "onnxruntime_onnx"))


@models.get("/ready", summary="Is this model loaded?", responses=refusals(_UNKNOWN | _NOT_READY))
def model_ready(context: ContextDep, model: ModelDep) -> Ready:
    context.line.check_ready()
    return Ready(name=model.name, ready=True)


@models.post(
    "/infer",
    summary="Score frames, uint8 [N, H, W, 3], without a decision; nothing is stored",
    response_class=Response,
    responses={200: {"model": InferResponse, "content": {BINARY: {}}}, **refusals(_UNKNOWN | _NOT_READY)},
    openapi_extra=_INFER_BODY,
)
def infer(context: ContextDep, model: ModelDep, request: Request, body: Annotated[bytes, Depends(_body)]) -> Response:
    inference = protocol.parse(body, request.headers, context.settings.max_pixels)
    answer, headers = protocol.render(inference, context.line.infer(inference.images), model.name, _version(model))
    return Response(answer, headers=headers)


def _version(model: Loaded) -> str:
    return model.digest[:12]


routes.include_router(models, prefix="/v2/models/{name}")
routes.include_router(models, prefix="/v2/models/{name}/versions/{version}", dependencies=[Depends(_check_version)])
