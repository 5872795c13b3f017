"""The house stays easy to walk through: files and rooms have a size that one can take in."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ahl_export", "ahl_runtime", "ahl_train", "benchmarks", "calibration")


@pytest.mark.parametrize("package", (*PACKAGES, "tests"))
def test_no_file_has_over_400_lines(package: str) -> None:
    long = {path: n for path in (ROOT / package).rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_has_over_12_modules_at_one_level(package: str) -> None:
    modules = Counter(path.parent for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py")
    assert not {room: n for room, n in modules.items() if n > 12}
