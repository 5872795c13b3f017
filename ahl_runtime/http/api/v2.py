"""The Open Inference Protocol's routes: probes, metadata and inference. Nothing here decides or is stored."""

from __future__ import annotations

from importlib.metadata import version

from pydantic import BaseModel, JsonValue
from starlette.responses import Response

from ahl_runtime.http.api import protocol
from ahl_runtime.http.api.operations import JSON, Call, Operation
from ahl_runtime.http.context import Context
from ahl_runtime.http.errors import Refusal

BINARY = "application/octet-stream"


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
    """-1 is a free dimension."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The bundle that is loaded. Its version is its digest's first 12 digits."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class Found(BaseModel):
    """What the graph says."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[dict[str, JsonValue]]


def live(context: Context, call: Call) -> Live:
    return Live(live=True)


def ready(context: Context, call: Call) -> Live:
    context.line.check_ready()
    return Live(live=True)


def about(context: Context, call: Call) -> About:
    return About(name="ahl-runtime", version=version("ahl"), extensions=["binary_tensor_data"])


def model(context: Context, call: Call) -> ModelMetadata:
    name, version = _named(context, call)
    return ModelMetadata.model_validate(protocol.metadata(name, version, "onnxruntime_onnx"))


def model_ready(context: Context, call: Call) -> Ready:
    name, _ = _named(context, call)
    context.line.check_ready()
    return Ready(name=name, ready=True)


def infer(context: Context, call: Call) -> Response:
    name, version = _named(context, call)
    asked = protocol.parse(call.raw, call.headers, context.settings.max_pixels)
    body, headers = protocol.render(asked, context.line.infer(asked.images), name, version)
    return Response(body, headers=headers)


def _named(context: Context, call: Call) -> tuple[str, str]:
    """The model's name and version, if the path asks for them."""
    model = context.line.model
    name, version = model.name, model.digest[:12]
    if call.path["name"] != name:
        raise Refusal(404, f"no model {call.path['name'][:80]!r}: this line runs {name!r}")
    if call.path.get("version", version) != version:
        raise Refusal(404, f"no version {call.path['version'][:80]!r} of {name!r}: this line runs {version}")
    return name, version


_UNKNOWN = {404: "no such model"}
_NOT_READY = {503: "not ready: no frame can be scored"}


def _model(suffix: str) -> list[str]:
    return [f"/v2/models/{{name}}{suffix}", f"/v2/models/{{name}}/versions/{{version}}{suffix}"]


OPERATIONS: list[Operation[Context]] = [
    Operation("GET", "/v2/health/live", live, "Does the process answer?", Live, public=True),
    Operation("GET", "/v2/health/ready", ready, "Can a frame be scored?", Live, refusals=_NOT_READY, public=True),
    Operation("GET", "/v2", about, "The server and its extensions", About),
    *(Operation("GET", p, model, "The model's tensors", ModelMetadata, refusals=_UNKNOWN) for p in _model("")),
    *(
        Operation("GET", p, model_ready, "Is this model loaded?", Ready, refusals=_UNKNOWN | _NOT_READY)
        for p in _model("/ready")
    ),
    *(
        Operation(
            "POST",
            p,
            infer,
            "Scores and anomaly maps of frames, uint8 [N, H, W, 3]; nothing is decided or stored",
            {JSON: Found, BINARY: None},
            body={JSON: protocol.InferRequest, BINARY: None},
            refusals=_UNKNOWN | _NOT_READY,
        )
        for p in _model("/infer")
    ),
]
