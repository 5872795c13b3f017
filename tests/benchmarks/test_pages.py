"""The pages that `make` writes figures into have a place for them, once."""

import re
import sys
from pathlib import Path

import pytest

from ahl_train.benchmark import sets, table
from benchmarks import ablation, export_figures, readme, soak
from benchmarks.speed import page as speed
from benchmarks.speed.sections import SECTIONS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
SIMULATED = ("promises", "tail", "drift", "kept", "kept-cross", "kept-few", "elpv")

PLACES = [
    (ROOT / "README.md", readme.MARKERS),
    (RESULTS / "accuracy.md", table.MARKERS),
    (RESULTS / "accuracy.md", sets.MARKERS),
    (RESULTS / "export.md", export_figures.MARKERS),
    (RESULTS / "method.md", ablation.MARKERS),
    (RESULTS / "reliability.md", soak.MARKERS),
    *((RESULTS / "speed.md", speed.markers(section)) for section in SECTIONS),
    *((RESULTS / "calibration.md", (f"<!-- {name} -->", f"<!-- /{name} -->")) for name in SIMULATED),
]


@pytest.fixture
def gpu_page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "gpu"))
    monkeypatch.delitem(sys.modules, "page", raising=False)
    import page

    return page


@pytest.mark.parametrize(("page", "markers"), PLACES, ids=[f"{p.stem}-{m[1]}" for p, m in PLACES])
def test_there_is_one_place_with_figures(page: Path, markers: tuple[str, str]) -> None:
    _has_one_place(page, markers)


def test_the_gpu_figures_have_theirs(gpu_page) -> None:
    _has_one_place(RESULTS / "gpu.md", gpu_page.PAGE)
    _has_one_place(ROOT / "README.md", gpu_page.README)


def _has_one_place(page: Path, markers: tuple[str, str]) -> None:
    body = page.read_text()
    assert body.count(markers[0]) == 1
    assert "|" in body.partition(markers[0])[2].partition(markers[1])[0]
    assert markers[1] in body.partition(markers[0])[2]


def test_make_writes_into_pages_that_exist() -> None:
    named = re.findall(r"\b(?:docs/\S+|README)\.md\b", (ROOT / "Makefile").read_text())
    assert len(named) >= 5
    assert not [name for name in named if not (ROOT / name).is_file()]
