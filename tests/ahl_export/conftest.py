"""The small run's graph and evidence, and frames."""

import numpy as np
import pytest

from ahl_export.graph.onnx_graph import to_onnx
from ahl_export.verify.parity import Evidence
from ahl_train.run import Run


@pytest.fixture(scope="session")
def graph(run: Run) -> bytes:
    """The small run's ONNX graph."""
    return to_onnx(run.model)


@pytest.fixture(scope="session")
def evidence(run: Run) -> Evidence:
    return Evidence(run)


def smooth(n: int, height: int, width: int) -> np.ndarray:
    """Frames as cameras give them, uint8 [n, height, width, 3]: noise says little about resizing."""
    coarse = np.random.default_rng(n).integers(0, 256, (n, 12, 12, 3)).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(-(-height // 12), 1).repeat(-(-width // 12), 2)[:, :height, :width])


@pytest.fixture(params=[(n, *size) for n in (1, 3, 8) for size in ((300, 300), (448, 448), (768, 1024))], ids=str)
def frames(request: pytest.FixtureRequest) -> np.ndarray:
    """Batches of the sizes that every engine must take."""
    return smooth(*request.param)
