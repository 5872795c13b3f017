"""The Python tutorial, block after block: training and export here, scoring in the plain install."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import elpv_dataset
import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "tutorial" / "python.md"
CELL = Path(elpv_dataset.__path__[0]) / "data" / "images" / "cell0001.png"


def code(heading: str) -> str:
    """The Python blocks of a section, in order."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert blocks, heading
    return "\n".join(blocks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tutorial is followed; the workstation's part is done."""
    place = tmp_path_factory.mktemp("tutorial")
    shutil.copy(CELL, place / "frame.png")
    run(sys.executable, "On the workstation", place)
    return place


def run(python: str | Path, heading: str, place: Path) -> str:
    done = subprocess.run([python, "-c", code(heading)], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_and_a_bundle_come_out(folder: Path) -> None:
    assert (folder / "runs" / "elpv" / "model.pt").exists() and (folder / "elpv.ahl").exists()


def test_the_plain_install_scores_with_it(folder: Path, binaries: Path) -> None:
    printed = run(binaries / "python", "On the device", folder).split()
    assert printed[0] in ("pass", "unsure", "reject") and "no-such-file.png:" in printed


def test_the_plain_install_sets_a_threshold(folder: Path, binaries: Path) -> None:
    assert "rejects at most 1% of normal frames" in run(binaries / "python", "Set a threshold yourself", folder)
