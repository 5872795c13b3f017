"""The protocol's codec: what a published client writes is read, what it reads is written, all else is refused."""

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st

from ahl_runtime.core.types import Outputs
from ahl_runtime.http.api import protocol
from ahl_runtime.http.errors import Refusal

LIMIT = 10_000
FRAMES = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
FOUND = Outputs(
    np.array([0.1, 0.7], np.float32), np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4), np.zeros((2, 1), "f4")
)


def written(
    binary: bool, outputs: list[Any] | None = None, frames: np.ndarray = FRAMES
) -> tuple[bytes, dict[str, str]]:
    """A request as the published client writes it."""
    tensor = triton.InferInput("image", list(FRAMES.shape), "UINT8")
    tensor.set_data_from_numpy(FRAMES, binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([tensor], outputs=outputs, request_id="a7")
    return body, {} if length is None else {protocol.HEADER: str(length)}


@pytest.mark.parametrize("binary", [True, False])
def test_a_clients_request_is_read(binary: bool) -> None:
    asked = protocol.parse(*written(binary), LIMIT)
    np.testing.assert_array_equal(asked.images, FRAMES)
    assert asked.id == "a7"
    assert dict(asked.outputs) == {"score": True, "anomaly_map": True}


@pytest.mark.parametrize("as_binary", [{"score": True, "anomaly_map": False}, {"anomaly_map": True}, {"score": False}])
def test_a_client_reads_the_answer(as_binary: dict[str, bool]) -> None:
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name, binary in as_binary.items()]
    asked = protocol.parse(*written(True, wanted), LIMIT)
    body, headers = protocol.render(asked, FOUND, "cells", "1")
    length = headers.get(protocol.HEADER)
    read = triton.InferenceServerClient.parse_response_body(body, header_length=int(length) if length else None)
    assert read.get_response()["id"] == "a7"
    for name in protocol.OUTPUTS:
        array = read.as_numpy(name)
        if name in as_binary:
            np.testing.assert_array_equal(array, getattr(FOUND, name))
        else:
            assert array is None


def test_nan_is_not_written_as_json() -> None:
    asked = protocol.parse(*written(True), LIMIT)
    broken = Outputs(FOUND.score, FOUND.anomaly_map * np.float32(np.nan), FOUND.head_scores)
    assert protocol.render(asked, broken, "cells", "1")[0]
    plain = protocol.Inference(None, asked.images, {"anomaly_map": False})
    with pytest.raises(Refusal, match="binary data"):
        protocol.render(plain, broken, "cells", "1")


TENSOR: dict[str, Any] = {"name": "image", "shape": [1, 1, 2, 3], "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 6]}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({}, "inputs: Field required"),
        ({"inputs": []}, "expected one, 'image', got none"),
        ({"inputs": [TENSOR, TENSOR]}, "expected one"),
        ({"inputs": [{**TENSOR, "name": "x"}]}, "got 'x'"),
        ({"inputs": [{**TENSOR, "datatype": "FP32"}]}, "expected datatype UINT8"),
        ({"inputs": [{**TENSOR, "shape": [1, 2, 3]}]}, r"expected shape \[N, H, W, 3\]"),
        ({"inputs": [{**TENSOR, "shape": [1, 1, 0, 3]}]}, "expected shape"),
        ({"inputs": [{**TENSOR, "shape": [1, -1, 2, 3]}]}, "shape.1"),
        ({"inputs": [{**TENSOR, "shape": [1, 1, 2.0, 3]}]}, "shape.2"),
        ({"inputs": [{**TENSOR, "shape": [True, 1, 2, 3]}]}, "shape.0"),
        ({"inputs": [{**TENSOR, "shape": [2, 1, 2, 3]}]}, "needs 12 numbers"),
        ({"inputs": [{**TENSOR, "data": None}]}, "no data"),
        ({"inputs": [{**TENSOR, "data": []}]}, "whole numbers"),
        ({"inputs": [{**TENSOR, "data": [1, 2, 3, 4, 5, 256]}]}, "0 to 255"),
        ({"inputs": [{**TENSOR, "data": [1, 2, 3, 4, 5, -1]}]}, "0 to 255"),
        ({"inputs": [{**TENSOR, "data": [1, 2, 3, 4, 5, 10**30]}]}, "0 to 255"),
        ({"inputs": [{**TENSOR, "data": [1.5] * 6}]}, "whole numbers"),
        ({"inputs": [{**TENSOR, "data": [True] * 6}]}, "whole numbers"),
        ({"inputs": [{**TENSOR, "data": ["1"] * 6}]}, "whole numbers"),
        ({"inputs": [{**TENSOR, "data": [[1, 2], [3], 4]}]}, "unevenly"),
        ({"inputs": [{**TENSOR, "data": [[1, 2, 3], [4, 5, 6]]}]}, "flat or nested"),
        ({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 6}}]}, "without the header"),
        ({"inputs": [{**TENSOR, "parameters": {"shared_memory_region": "x"}}]}, "not supported"),
        ({"inputs": [TENSOR], "outputs": [{"name": "head_scores"}]}, "expected each of score, anomaly_map"),
        ({"inputs": [TENSOR], "outputs": [{"name": "score"}] * 2}, "at most once"),
        ({"inputs": [TENSOR], "outputs": [{"name": "score", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"inputs": [TENSOR], "outputs": [{"name": "score", "parameters": {"classification": 1}}]}, "not supported"),
        ({"inputs": [TENSOR], "parameters": {"binary_data_output": "yes"}}, "true or false"),
        ({"inputs": [TENSOR], "id": 7}, "id: "),
        ([], "the body: "),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(request_: Any, reason: str) -> None:
    with pytest.raises(Refusal, match=reason) as refused:
        protocol.parse(json.dumps(request_).encode(), {}, LIMIT)
    assert refused.value.status == 400


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "99999999", "٣"])
def test_a_wrong_header_length(length: str) -> None:
    with pytest.raises(Refusal, match="is not a number of bytes"):
        protocol.parse(b"{}", {protocol.HEADER: length}, LIMIT)


@pytest.mark.parametrize("cut", [-1, 1])
def test_binary_data_of_another_length(cut: int) -> None:
    body, headers = written(True)
    body = body[:cut] if cut < 0 else body + b"x"
    with pytest.raises(Refusal, match="has 210 bytes"):
        protocol.parse(body, headers, LIMIT)


def test_too_many_pixels_and_too_much_json() -> None:
    with pytest.raises(Refusal, match="70 pixels, the limit is 69") as refused:
        protocol.parse(*written(True), 69)
    assert refused.value.status == 413
    with pytest.raises(Refusal, match="bytes of JSON") as refused:
        protocol.parse(b" " * (protocol.MAX_JSON + 1), {}, LIMIT)
    assert refused.value.status == 413


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(Refusal):
        protocol.parse(b"[" * 100_000, {}, LIMIT)
    deep = b'{"inputs":[{"name":"image","shape":[1,1,2,3],"datatype":"UINT8","data":' + b"[" * 90 + b"]" * 90 + b"}]}"
    with pytest.raises(Refusal):
        protocol.parse(deep, {}, LIMIT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("image") | json_values,
        "shape": st.just([1, 1, 2, 3]) | st.lists(st.integers(-(2**70), 2**70), max_size=5) | json_values,
        "datatype": st.just("UINT8") | json_values,
        "data": st.lists(st.integers(0, 255), min_size=6, max_size=6) | json_values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.just(6) | json_values}) | json_values,
    },
)
output = st.fixed_dictionaries({"name": st.sampled_from(["score", "x"])}, optional={"parameters": json_values})
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=2) | json_values},
    optional={
        "id": st.text(max_size=5) | json_values,
        "outputs": st.lists(output) | json_values,
        "parameters": st.fixed_dictionaries({"binary_data_output": json_values}) | json_values,
    },
)


def answered_or_refused(body: bytes, headers: dict[str, str]) -> None:
    try:
        asked = protocol.parse(body, headers, LIMIT)
    except Refusal as refusal:
        assert refusal.status in (400, 413) and str(refusal)
    else:
        n = len(asked.images)
        found = Outputs(np.zeros(n, "f4"), np.zeros((n, 2, 2), "f4"), np.zeros((n, 1), "f4"))
        assert asked.images.dtype == np.uint8 and asked.images.ndim == 4 and n
        protocol.render(asked, found, "cells", "1")


@given(requests, st.binary(max_size=8), st.none() | st.integers(-2, 2) | st.text(max_size=4))
def test_any_json_is_answered_or_refused(request_: Any, tail: bytes, length: int | str | None) -> None:
    head = json.dumps(request_).encode()
    value = str(len(head) + length) if isinstance(length, int) else length
    answered_or_refused(head + tail, {} if value is None else {protocol.HEADER: value})


@given(st.binary(max_size=200), st.none() | st.integers(0, 200))
def test_any_bytes_are_answered_or_refused(body: bytes, length: int | None) -> None:
    answered_or_refused(body, {} if length is None else {protocol.HEADER: str(length)})


@given(st.data())
def test_any_damage_is_answered_or_refused(data: st.DataObject) -> None:
    body, headers = written(data.draw(st.booleans()))
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    answered_or_refused(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]), headers)
