"""The bench's sections: real contestants for a moment, files that are kept, the page, what is refused. No times."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ahl_export.errors import ExportError
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.engines.base import cores
from ahl_runtime.tuning.measure import ONE, Timed, Worker, in_turn
from ahl_train.errors import RunError
from benchmarks.speed import contestant, models, page, scoring, serving, start
from benchmarks.speed.sections import SECTIONS, bench

ENGINES = {"onnxruntime", "onnxruntime-int8", "openvino"}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A page with every section's markers."""
    path = tmp_path / "page.md"
    path.write_text("\n".join(marker for name in SECTIONS for marker in page.markers(name)))
    return path


def timed(name: str, ms: list[list[float]]) -> Timed:
    many = {f"{cores(None)} sessions of 1 thread": [180.0, 200.0], ONE: [100.0, 100.0]}
    return Timed(name, ms, many, {"rss_mb": 100.0, "rss_peak_mb": 120.0})


def test_ratios_are_those_of_each_round() -> None:
    both = {"ours": timed("ours", [[10.0, 10.0, 90.0], [20.0]]), "slow": timed("slow", [[40.0], [100.0]])}
    found = scoring.ratios(both, "ours")
    assert found["slow"] == [4.5, 4.25, 4.75]  # 40 / 10 and 100 / 20
    assert found["saturated, against one core"][0] == pytest.approx(1.9)


def test_the_bars_take_the_fastest_of_each_size() -> None:
    own = {
        "anomalib PaDiM, 256 px": [2.0, 2.0, 2.0],
        "anomalib EfficientAD-S, 256 px": [3.0, 3.0, 3.0],
        "anomalib PaDiM, 448 px": [6.0, 6.0, 6.0],
        scoring.PAPER: [9.0, 8.0, 10.0],
        "bare backbone, onnxruntime": [0.9, 0.9, 0.9],
        "saturated, against one core": [1.7, 1.7, 1.7],
    }
    assert list(page.bars({"ratios": {"onnxruntime": own}})["onnxruntime"].values()) == [9.0, 6.0, 2.0, 0.9, 1.7]


@pytest.mark.slow
def test_what_we_compare_with_scores(tmp_path: Path) -> None:
    exported = models.write_anomalib(tmp_path, "PaDiM", 64)
    with (
        Worker("paper", "benchmarks.speed.contestant", "paper") as paper,
        Worker("padim", "benchmarks.speed.contestant", "anomalib", exported, 64) as padim,
        Worker("exact", "benchmarks.speed.contestant", "anomalib", exported, 64, "f32") as exact,
    ):
        found = in_turn([paper, padim, exact], 0.02, 1, cores(None))
    assert [len(f.rounds[0]) >= 3 for f in found] == [True, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_the_bare_backbone_runs_at_both_scales(kind: str, tmp_path: Path) -> None:
    path = models.write_backbone(tmp_path / "backbone.onnx", models.BackboneSpec())
    assert len(getattr(contestant, kind)(1, path)()) == 4


def test_stages_are_the_whole_graph(full_bundle: Bundle) -> None:
    found = scoring.stages(full_bundle)
    assert all(ms > 0 for ms in found.values()) and max(found, key=lambda k: found[k]) == "network"


@pytest.mark.slow
def test_serving_and_starting_are_written_into_the_page(full_bundle: Bundle, docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench"
    files = bench(full_bundle.path, out, only=("serving", "start"), page=docs, seconds=0.5)
    found = json.loads(files[0].read_text())
    assert found["digest"] == full_bundle.digest and set(found["rows"]) == ENGINES
    for row in found["rows"].values():
        assert 0 < row["http_ms_p50"] <= row["http_ms_p99"]
        assert min(*row["bare_fps"], *row["http_fps"], *row["folder_fps"]) > 0
    begun = json.loads(files[1].read_text())
    assert set(begun["cold_start_s"]) == ENGINES
    text = docs.read_text()
    assert text.count("AMD") + text.count("Intel") + text.count("cores of an") >= 2 and "HTTP, 4 clients" in text
    said: list[str] = []
    assert bench(full_bundle.path, out, only=("start",), report=said.append) == [out / "start.json"]
    assert "already" in said[0]
    with pytest.raises(RunError, match=r"no\.md"):
        page.write_section(tmp_path / "no.md", "start", begun)


def test_a_server_that_cannot_start_says_why(full_bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ahl"
    broken.write_bytes(full_bundle.path.read_bytes()[:1000])
    (tmp_path / "own").mkdir()
    with pytest.raises(ExportError, match=r"did not start: error: .*broken\.ahl"):
        serving.Served(replace(full_bundle, path=broken), "onnxruntime", tmp_path / "own")


def test_the_plain_install_is_light() -> None:
    found = start.plain_install()
    assert {"numpy", "onnxruntime", "pillow", "starlette"} <= found
    assert not found & {"torch", "timm", "scikit-learn", "onnx", "ahl"}
    assert start.installed("numpy") > 1e6


def test_wrong_sections_files_and_pages(full_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no section nothing: choose among scoring, serving"):
        bench(full_bundle.path, tmp_path, only=("nothing",))
    (tmp_path / "start.json").write_text("{")
    with pytest.raises(ExportError, match=r"start.json: cannot be read"):
        bench(full_bundle.path, tmp_path, only=("start",), page=tmp_path / "page.md")
