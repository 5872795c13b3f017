"""A small real run, its bundle, and the plain install. Imports are inside: the device's tests need no torch."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).parents[1]

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
    from ahl_export.options import ExportOptions
    from ahl_export.pipeline import export

    out = tmp_path_factory.mktemp("out") / "all.ahl"
    return export(run.folder, out, ExportOptions(alpha=0.1, openvino=True, int8=True))


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


def _quiet(command: Sequence[object]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the tracked tree installed and no extra."""
    place = tmp_path_factory.mktemp("plain")
    tree, environment = place / "tree", place / "venv"
    tracked = _quiet(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "--deduplicate"]).stdout.splitlines()
    for name in tracked:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    assert _quiet([sys.executable, "-m", "venv", environment]).returncode == 0
    pip = [environment / "bin/python", "-m", "pip", "install", "-q", "-c", tree / "constraints.txt", tree]
    installed = _quiet(pip)
    assert installed.returncode == 0, installed.stderr
    return environment / "bin"
