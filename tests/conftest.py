"""A small real run, trained once, and its bundle. Imports are inside: the device's tests run without torch."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ahl_runtime.bundle.bundle import Bundle
    from ahl_train.run import Run


def cells(probability: float) -> list[Path]:
    """ELPV's images of one probability of being defective."""
    import elpv_dataset

    elpv = Path(elpv_dataset.__path__[0]) / "data"
    rows = csv.reader((elpv / "labels.csv").read_text().splitlines(), delimiter=" ", skipinitialspace=True)
    return [elpv / row[0] for row in rows if float(row[1]) == probability]


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
def run(small_set: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The default system, trained for two epochs; 25 train normals, 20 to calibrate."""
    from ahl_train.config import TrainConfig
    from ahl_train.training import train

    config = TrainConfig(str(small_set), shots=4, epochs=2, calibration=20)
    return train(config, tmp_path_factory.mktemp("runs") / "small", cache=cache)


@pytest.fixture(scope="session")
def full_bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """All artefacts that can run here, each proven, from the small run."""
    from ahl_export.pipeline import ArtefactChoice, export

    out = tmp_path_factory.mktemp("out") / "all.ahl"
    return export(run.folder, out, alpha=0.1, wanted=ArtefactChoice(openvino=True, int8=True)).bundle


def write_elpv(root: Path, train: int, test: int) -> Path:
    """The first normals of ELPV, to train and to test, and 4 anomalies of each kind of cell, in MVTec AD layout."""
    pytest.importorskip("elpv_dataset")
    from ahl_train.data.readers import elpv

    samples = elpv.read().samples
    normal = [s.path for s in samples if s.label == 0]
    kinds = {kind: [s.path for s in samples if s.kind == kind] for kind in ("mono", "poly")}
    for folder, files in (
        ("train/good", normal[:train]),
        ("test/good", normal[train : train + test]),
        *((f"test/{kind}", files[:4]) for kind, files in kinds.items()),
    ):
        (root / folder).mkdir(parents=True)
        for file in files:
            shutil.copy(file, root / folder)
    return root


@pytest.fixture(scope="session")
def elpv_cells() -> Callable[..., Path]:
    return write_elpv
