"""A client of the protocol that no one here wrote scores frames with no adapter, with the command line's numbers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.http.api import protocol


@pytest.fixture
def client(url: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(url.removeprefix("http://"))


def tensor(image: np.ndarray, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput("image", list(image.shape), "UINT8")
    found.set_data_from_numpy(image, binary_data=binary)
    return found


@pytest.mark.parametrize("binary", [True, False])
def test_it_gets_the_number_that_the_command_line_prints(
    binary: bool, client: triton.InferenceServerClient, bundle_path: Path, cells: list[Path]
) -> None:
    command = [sys.executable, "-m", "ahl_runtime.cli.main", "score", "--bundle", str(bundle_path), str(cells[3])]
    printed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in protocol.OUTPUTS]
    image = decode(cells[3])[np.newaxis]
    found = client.infer("cells", [tensor(image, binary)], outputs=outputs, request_id="7")
    assert float(found.as_numpy("score")[0]) == printed["score"]
    assert found.as_numpy("anomaly_map").shape == (1, 16, 16)
    assert found.get_response()["id"] == "7"


def test_many_frames_at_once(client: triton.InferenceServerClient, cells: list[Path]) -> None:
    images = np.stack([decode(cell) for cell in cells[:4]])
    together = client.infer("cells", [tensor(images)]).as_numpy("score")
    alone = [client.infer("cells", [tensor(image[np.newaxis])]).as_numpy("score")[0] for image in images]
    np.testing.assert_array_equal(together, alone)


def test_what_the_server_says_of_itself(client: triton.InferenceServerClient, bundle_path: Path) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("cells")
    about = client.get_server_metadata()
    assert about["name"] == "ahl-runtime" and "binary_tensor_data" in about["extensions"]
    version = open_bundle(bundle_path).digest[:12]
    assert client.get_model_metadata("cells") == client.get_model_metadata("cells", version)
    assert client.get_model_metadata("cells") == {
        "name": "cells",
        "versions": [version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "anomaly_map", "datatype": "FP32", "shape": [-1, -1, -1]},
        ],
    }


def test_its_errors_are_told(client: triton.InferenceServerClient) -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    for name, version in (("other", ""), ("cells", "1")):
        assert not client.is_model_ready(name, version)
        with pytest.raises(InferenceServerException, match="this line runs"):
            client.infer(name, [tensor(image)], model_version=version)
    with pytest.raises(InferenceServerException, match="expected datatype UINT8"):
        wrong = triton.InferInput("image", [1, 8, 8, 3], "FP32")
        wrong.set_data_from_numpy(image.astype(np.float32))
        client.infer("cells", [wrong])
    with pytest.raises(InferenceServerException, match="content-encoding gzip"):
        client.infer("cells", [tensor(image)], request_compression_algorithm="gzip")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff\xfe", b'{"inputs": []}', b"[" * 100_000])
def test_a_malformed_request_is_refused(body: bytes, url: str) -> None:
    refused = requests.post(f"{url}/v2/models/cells/infer", body, timeout=5)
    assert refused.status_code == 400 and refused.json()["error"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=400) | st.just(b'{"inputs": [{"name": "image", "shape": [1, 2, 2, 3]}]}' + bytes(12)),
    length=st.none() | st.text("0123456789 -x", min_size=1, max_size=4),
    route=st.sampled_from(["/infer", "/versions/1/infer", "", "/ready", "/unknown"]),
    method=st.sampled_from(["POST", "GET", "PUT", "HEAD"]),
)
def test_no_request_is_a_fault(url: str, body: bytes, length: str | None, route: str, method: str) -> None:
    headers = {} if length is None else {protocol.HEADER: length.strip() or "0"}
    answered = requests.request(method, f"{url}/v2/models/cells{route}", data=body, headers=headers, timeout=5)
    assert answered.status_code in (200, 400, 404, 405)
