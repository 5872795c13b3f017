"""A line with one camera, on a real bundle, fits a small device of two cores."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest

from ahl_runtime.bundle.bundle import Bundle

pytestmark = pytest.mark.slow

LIMIT = 350_000_000  # bytes
FRAMES = 100
RUNTIME = Path(sys.executable).with_name("ahl-runtime")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """1280 x 720, as Motion JPEG, and faster than it is scored, so that as many frames wait as may: coarse noise."""
    path = tmp_path / "film.avi"
    coarse = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=60)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuvj420p"
        for _ in range(20):
            image = coarse.integers(0, 256, (9, 16, 3)).astype(np.uint8).repeat(80, 0).repeat(80, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_one_camera_takes_less_than_350_megabytes(engine: str, full_bundle: Bundle, film: Path, tmp_path: Path) -> None:
    (tmp_path / "line.toml").write_text(
        f"""
[model]
bundle = "{full_bundle.path}"
engine = "{engine}"
threads = 2
[[source]]
name = "camera"
kind = "video"
path = "{film}"
realtime = true
loop = true
policy = "drop-oldest"
[[sink]]
name = "file"
kind = "jsonl"
path = "out.jsonl"
[http]
port = 0
"""
    )
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen([RUNTIME, "serve", "--config", "line.toml"], cwd=tmp_path, stderr=errors)
    try:
        out, end = tmp_path / "out.jsonl", time.monotonic() + 120
        while not out.exists() or out.read_bytes().count(b"\n") < FRAMES:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        serving = next(line for line in log.read_text().splitlines() if '"serving"' in line)
        with urllib.request.urlopen(f"{json.loads(serving)['url']}/metrics", timeout=60) as answer:
            told = next(line for line in answer if line.startswith(b"process_resident_memory_bytes "))
    finally:
        process.terminate()
        process.wait(60)
    assert float(told.split()[1]) < LIMIT
