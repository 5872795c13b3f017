"""A small real run, trained once: ELPV cells in a folder of MVTec AD layout."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import elpv_dataset
import numpy as np
import pytest

from ahl_export.assemble import Wanted, export
from ahl_export.onnx_graph import to_onnx
from ahl_export.parity import Evidence
from ahl_runtime.bundle import Bundle
from ahl_train.config import TrainConfig
from ahl_train.run import Run
from ahl_train.train import train

ELPV = Path(elpv_dataset.__path__[0]) / "data"


def cells(probability: float) -> list[Path]:
    """ELPV's images of one probability of being defective."""
    rows = csv.reader((ELPV / "labels.csv").read_text().splitlines(), delimiter=" ", skipinitialspace=True)
    return [ELPV / row[0] for row in rows if float(row[1]) == probability]


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 train and 10 test normals, 8 anomalies."""
    root = tmp_path_factory.mktemp("cells")
    normal, broken = cells(0.0), cells(1.0)
    for folder, files in (
        ("train/good", normal[:45]),
        ("test/good", normal[45:55]),
        ("test/crack", broken[:8]),
    ):
        (root / folder).mkdir(parents=True)
        for file in files:
            shutil.copy(file, root / folder)
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def run(small_set: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The default system, trained for two epochs; 25 train normals, 20 to calibrate."""
    config = TrainConfig(str(small_set), shots=4, epochs=2, calibration=20)
    yield train(config, tmp_path_factory.mktemp("runs") / "small", cache=cache)


@pytest.fixture(scope="session")
def graph(run: Run) -> bytes:
    """The small run's ONNX graph."""
    return to_onnx(run.model)


@pytest.fixture(scope="session")
def evidence(run: Run) -> Evidence:
    return Evidence(run)


@pytest.fixture(scope="session")
def full_bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """All artefacts that can run here, each proven, from the small run."""
    out = tmp_path_factory.mktemp("out") / "all.ahl"
    return export(run.folder, out, alpha=0.1, wanted=Wanted(openvino=True, int8=True)).bundle


def smooth(n: int, height: int, width: int) -> np.ndarray:
    """Frames as cameras give them, uint8 [n, height, width, 3]: noise says little about resizing."""
    coarse = np.random.default_rng(n).integers(0, 256, (n, 12, 12, 3)).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(-(-height // 12), 1).repeat(-(-width // 12), 2)[:, :height, :width])


@pytest.fixture(params=[(n, *size) for n in (1, 3, 8) for size in ((300, 300), (448, 448), (768, 1024))], ids=str)
def frames(request: pytest.FixtureRequest) -> np.ndarray:
    """Batches of the sizes that every engine must take."""
    return smooth(*request.param)
