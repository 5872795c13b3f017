"""A line that is sent frames of many sizes keeps its memory."""

import json
import subprocess
import sys

import pytest

from ahl_runtime.bundle.bundle import Bundle

pytestmark = pytest.mark.slow

PROCESS = """
import json, sys
from pathlib import Path
import numpy as np
from ahl_runtime import engines
from ahl_runtime.tuning import measure
from ahl_runtime.bundle.bundle import open_bundle

bundle, name = open_bundle(Path(sys.argv[1])), sys.argv[2]
engine = engines.load(bundle, name, 2)

def seen(sides):
    for side in sides:
        engine.infer(np.zeros((1, side, side, 3), np.uint8))
    return measure.memory()["rss_mb"]

print(json.dumps([seen([500, 400]), seen(range(300, 500, 10))]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by Linux only")
@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-int8", "openvino"])
def test_memory_does_not_grow_with_the_sizes_seen(engine: str, full_bundle: Bundle) -> None:
    command = [sys.executable, "-c", PROCESS, str(full_bundle.path), engine]
    before, after = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert after - before < 20  # MB; at 6.5 a size, 20 sizes would take 130
