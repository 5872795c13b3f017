"""Open Inference Protocol v2 over HTTP, with the binary tensor extension: bytes to arrays and back, nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError
from pydantic_core import from_json

from ahl_runtime.core.types import Outputs
from ahl_runtime.http.api.problems import reasons
from ahl_runtime.http.errors import Refusal

INPUT = "image"
OUTPUTS = ("score", "anomaly_map")
HEADER = "inference-header-content-length"
MAX_JSON = 8 << 20  # bytes; parsed JSON takes many times its size, binary tensors do not

_MAX_ID = 256
_DIGITS = re.compile(r"[0-9]{1,12}")
# These change the meaning of a request: they are refused, not ignored.
_UNSUPPORTED = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "classification")

Parameters = dict[str, Any]
Dimension = Annotated[StrictInt, Field(ge=0)]


class InferInput(BaseModel):
    """A tensor of a request: `data`, nested or flat, or `binary_data_size` among its parameters."""

    model_config = ConfigDict(extra="ignore")

    name: StrictStr
    shape: Annotated[list[Dimension], Field(max_length=16)]
    datatype: StrictStr
    parameters: Parameters = {}
    data: Any = None


class InferOutput(BaseModel):
    """A requested output tensor."""

    model_config = ConfigDict(extra="ignore")

    name: StrictStr
    parameters: Parameters = {}


class InferRequest(BaseModel):
    """The JSON part of an inference request."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[StrictStr, Field(max_length=_MAX_ID)] | None = None
    parameters: Parameters = {}
    inputs: list[InferInput]
    outputs: list[InferOutput] = []


@dataclass(frozen=True, eq=False)
class Inference:
    """`images`: uint8 [N, H, W, 3], RGB. `outputs`: names in the order of the request, and whether as binary data."""

    id: str | None
    images: NDArray[np.uint8]
    outputs: Mapping[str, bool]


def parse(body: bytes, headers: Mapping[str, str], max_pixels: int) -> Inference:
    """Read an inference request. `headers`: by lower-case name. `max_pixels`: of all frames together.

    Refusal, 400 with the reason; 413 for too many pixels or too much JSON.
    """
    head, tail = _split(body, headers.get(HEADER))
    request = _request(head)
    if [i.name for i in request.inputs] != [INPUT]:
        named = ", ".join(repr(i.name[:40]) for i in request.inputs[:4]) or "none"
        raise _bad(f"inputs: expected one, {INPUT!r}, got {named}")
    images = _tensor(request.inputs[0], tail, headers.get(HEADER) is not None, max_pixels)
    return Inference(request.id, images, _outputs(request))


def render(inference: Inference, found: Outputs, name: str, version: str) -> tuple[bytes, dict[str, str]]:
    """The response's body and its headers: one JSON object, with the binary tensors behind it if any were requested.

    Refusal, 500, if a value that JSON cannot represent (NaN) is requested as JSON.
    """
    outputs: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for output, binary in inference.outputs.items():
        array: NDArray[np.float32] = getattr(found, output)
        described: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": list(array.shape)}
        if binary:
            chunks.append(np.ascontiguousarray(array, "<f4").tobytes())
            described["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            described["data"] = array.ravel().tolist()
        outputs.append(described)
    answer: dict[str, Any] = {"model_name": name, "model_version": version}
    if inference.id is not None:
        answer["id"] = inference.id
    try:
        head = json.dumps({**answer, "outputs": outputs}, allow_nan=False).encode()
    except ValueError as error:
        raise Refusal(500, "an output holds NaN, which JSON cannot represent: request it as binary data") from error
    if not chunks:
        return head, {"content-type": "application/json"}
    return b"".join((head, *chunks)), {"content-type": "application/octet-stream", HEADER: str(len(head))}


def metadata(name: str, version: str, platform: str) -> dict[str, Any]:
    """The model's metadata response: -1 is a free dimension."""
    return {
        "name": name,
        "versions": [version],
        "platform": platform,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "anomaly_map", "datatype": "FP32", "shape": [-1, -1, -1]},
        ],
    }


def _split(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON, and the binary data behind it."""
    if length is None:
        size = len(body)
    elif not _DIGITS.fullmatch(length) or int(length) > len(body):
        raise _bad(f"{HEADER}: {length[:40]!r} is not a number of bytes up to the body's {len(body)}")
    else:
        size = int(length)
    if size > MAX_JSON:
        raise Refusal(413, f"{size} bytes of JSON, the limit is {MAX_JSON}: send the tensor as binary data")
    return body[:size], memoryview(body)[size:]


def _request(head: bytes) -> InferRequest:
    try:
        return InferRequest.model_validate(from_json(head, allow_inf_nan=False))
    except ValidationError as error:
        raise _bad(reasons(error.errors(include_url=False))) from error
    except (ValueError, RecursionError) as error:
        raise _bad(f"not a JSON object: {error}") from error


def _tensor(given: InferInput, tail: memoryview, has_tail: bool, max_pixels: int) -> NDArray[np.uint8]:
    _supported(given.parameters, INPUT)
    shape = given.shape
    if given.datatype != "UINT8":
        raise _bad(f"{INPUT}: expected datatype UINT8, got {given.datatype[:40]!r}")
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise _bad(f"{INPUT}: expected shape [N, H, W, 3], got {str(shape)[:80]}")
    pixels = shape[0] * shape[1] * shape[2]
    if pixels > max_pixels:
        raise Refusal(413, f"{INPUT}: {pixels} pixels, the limit is {max_pixels}: send fewer or smaller frames")
    size = given.parameters.get("binary_data_size")
    if size is None:
        if len(tail):
            raise _bad(f"{len(tail)} bytes follow the JSON, but {INPUT} has no binary_data_size")
        return _from_json(given.data, shape)
    if not has_tail:
        raise _bad(f"{INPUT}: binary_data_size without the header {HEADER}")
    if given.data is not None:
        raise _bad(f"{INPUT}: both data and binary_data_size: give one of them")
    if type(size) is not int or size != 3 * pixels or size != len(tail):
        raise _bad(
            f"{INPUT}: shape {shape} has {3 * pixels} bytes, binary_data_size is {str(size)[:40]}, "
            f"and {len(tail)} follow the JSON"
        )
    return np.frombuffer(tail, np.uint8).reshape(shape)


def _from_json(data: object, shape: list[int]) -> NDArray[np.uint8]:
    """Flat, or nested as the shape says; row-major."""
    if not isinstance(data, list):
        raise _bad(f"{INPUT}: no data: expected a list of numbers, or binary_data_size")
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise _bad(f"{INPUT}: data is nested unevenly") from error
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise _bad(f"{INPUT}: data must be whole numbers from 0 to 255")
    count = shape[0] * shape[1] * shape[2] * shape[3]
    if array.shape not in ((count,), tuple(shape)):
        raise _bad(f"{INPUT}: shape {shape} needs {count} numbers, flat or nested so; data is {str(array.shape)[:80]}")
    return array.astype(np.uint8).reshape(shape)


def _outputs(request: InferRequest) -> dict[str, bool]:
    default = _flag(request.parameters, "binary_data_output", "the request") or False
    if not request.outputs:
        return dict.fromkeys(OUTPUTS, default)
    requested: dict[str, bool] = {}
    for output in request.outputs:
        if output.name not in OUTPUTS or output.name in requested:
            raise _bad(f"outputs: {output.name[:40]!r}: expected each of {', '.join(OUTPUTS)} at most once")
        _supported(output.parameters, output.name)
        binary = _flag(output.parameters, "binary_data", output.name)
        requested[output.name] = default if binary is None else binary
    return requested


def _flag(parameters: Parameters, key: str, where: str) -> bool | None:
    value = parameters.get(key)
    if value is not None and not isinstance(value, bool):
        raise _bad(f"{where}: {key} is {str(value)[:40]!r}, expected true or false")
    return value


def _supported(parameters: Parameters, where: str) -> None:
    for key in _UNSUPPORTED:
        if key in parameters:
            raise _bad(f"{where}: {key} is not supported here")


def _bad(reason: str) -> Refusal:
    return Refusal(400, reason)
