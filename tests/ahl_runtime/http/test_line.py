"""The server around a real line: the v2 protocol, scoring, marking, calibrating and deploying over HTTP."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.http as triton

from ahl_runtime.core.decode import decode
from ahl_runtime.http.app import build
from ahl_runtime.http.server import Server
from ahl_runtime.http.settings import Settings
from ahl_runtime.line.line import Line


@pytest.fixture
def line(running: Callable[..., Line], make_bundle: Callable[..., Path]) -> Line:
    return running(model={"bundle": make_bundle()})


@pytest.fixture
def url(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("AHL_TOKEN", raising=False)
    settings = Settings(port=0, rate=1e6)
    app = build(line, settings)
    with Server(app.asgi, settings, app.stop) as server:
        yield server.url


def test_a_foreign_client_gets_the_number_of_score(url: str, line: Line, cells: list[Path]) -> None:
    pixels = decode(cells[0])[np.newaxis]
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_model_ready("cells")
    image = triton.InferInput("image", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels)
    score = client.infer("cells", [image]).as_numpy("score")[0]
    command = [Path(sys.executable).with_name("ahl-runtime"), "score", "--bundle", line.model.path, cells[0]]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f'"score": {float(score)}' in told


def test_an_operator_and_a_program(url: str, line: Line, cells: list[Path], make_bundle: Callable[..., Path]) -> None:
    def post(path: str, body: object) -> requests.Response:
        return requests.post(url + path, json=body, timeout=60)

    def score(cell: Path, query: str = "") -> requests.Response:
        headers = {"content-type": "image/png"}
        return requests.post(f"{url}/v1/score{query}", cell.read_bytes(), headers=headers, timeout=60)

    for cell in cells:
        answer = score(cell, f"?frame={cell.name}")
        assert answer.status_code == 200, answer.text
    page = requests.get(f"{url}/v1/decisions?limit=500", timeout=60).json()
    assert [d["frame"] for d in page["decisions"]] == [cell.name for cell in reversed(cells)]
    passed = next(d for d in page["decisions"] if d["verdict"] == "pass")
    marked = post(f"/v1/decisions/{passed['id']}/mark", {"word": "wrong"})  # its image was not kept until now
    assert marked.json() == {"id": passed["id"], "label": "anomaly"}
    assert post(f"/v1/decisions/{passed['id']}/mark", {"word": "right"}).json()["label"] == "good"
    asked = {"source": "default", "frames": 40, "alpha": 0.1}
    preview = post("/v1/calibration/preview", asked).json()
    applied = post("/v1/calibration/apply", {"preview": preview["preview"], "who": "ann", "why": "a new lamp"})
    assert applied.json() == {"name": "default.onnxruntime.0001"}
    make_bundle("b.ahl", {"name": "newer"})
    line.config.model.bundle.with_name("bad.ahl").write_bytes(b"no")
    assert post("/v1/deploy", {"bundle": "bad.ahl"}).status_code == 409
    assert (
        requests.post(
            f"{url}/v1/score?source=left", cells[0].read_bytes(), timeout=60, headers={"content-type": "image/png"}
        ).status_code
        == 404
    )
    metrics = requests.get(f"{url}/metrics", timeout=60).text
    assert 'ahl_frames_total{source="default"} 40.0' in metrics
    assert 'ahl_stage_seconds_count{stage="total"} 40.0' in metrics
    assert requests.get(f"{url}/v1/sources/default/picture", timeout=60).headers["content-type"] == "image/jpeg"
    line.stop()
    assert requests.get(f"{url}/readyz", timeout=60).status_code == 503
    stopped = score(cells[0])
    assert stopped.status_code == 503
