"""`ahl export --trt --trt-rtx --triton`: what the bundle carries where there is no GPU, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from ahl_export.backends import tensorrt as tensorrt_engine
from ahl_export.options import ExportOptions
from ahl_export.pipeline import export
from ahl_export.verify.parity import Evidence, compare, departs
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.engines import cuda, trt_build
from ahl_runtime.engines.ort import OrtEngine
from ahl_runtime.score import selfcheck
from ahl_train.run import Run

pytestmark = pytest.mark.slow
NO_GPU = pytest.mark.skipif(cuda.missing() is None, reason="says what is said where there is no GPU")


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx comes for x86-64 alone")
    folder = tmp_path_factory.mktemp("out")
    options = ExportOptions(alpha=0.1, trt=True, trt_rtx=("sm89",), trt_compat=True, triton=folder / "models")
    return export(run.folder, folder / "line.ahl", options)


@NO_GPU
def test_the_bundle_carries_graph_recipe_and_plan(exported: Bundle) -> None:
    manifest = exported.manifest
    assert [a.engine for a in manifest.artefacts] == ["onnxruntime", "tensorrt", "tensorrt-rtx"]
    _, trt, rtx = manifest.artefacts
    assert trt.files == [tensorrt_engine.MODEL] and trt.parity is None
    assert trt_build.recipe(trt.extras["recipe"]).version_compatible
    assert rtx.extras["layers"]["float16"] > 50
    promise = trt.decision.promise
    assert promise.startswith("not proven") and promise.endswith(manifest.first.decision.promise)
    assert trt.decision == manifest.first.decision.model_copy(update={"promise": promise})
    assert 0 < trt.extras["graph_on_cpu"]["score_max"] < 0.1
    assert (exported.path.with_name("models") / "line" / "1" / "model.onnx").is_file()


@NO_GPU
def test_the_self_check_says_what_is_missing(exported: Bundle) -> None:
    report = selfcheck.check(exported)
    assert report.passed and report.chosen == "onnxruntime"
    assert {c.engine for c in report.checks if c.passed is None} >= {"tensorrt", "tensorrt-rtx"}


def test_the_carried_graph_keeps_the_self_checks_tolerance(exported: Bundle) -> None:
    artefact = exported.manifest.artefact("tensorrt")
    assert artefact is not None
    engine = OrtEngine(exported.read(artefact.files[0]))
    for _, image, expected in exported.reference(artefact):
        off = abs(float(engine.infer(image[None]).score[0]) - expected) / max(1.0, abs(expected))
        assert off < artefact.tolerance


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--trt-rtx", "sm90"], "does not run on sm90 (Hopper): take --trt"),
        (["--trt", "--trt-precision", "int8"], "'int8' is not one of 'float16', 'float32'"),
        (["--trt", "--trt-hardware-compat", "all"], "'all' is not one of 'none', 'same', 'ampere'"),
        (["--trt-compat"], "options of trt (--trt): give it too"),
    ],
)
def test_options_that_are_refused(run: Run, tmp_path: Path, options: list[str], why: str) -> None:
    command = [str(Path(sys.executable).with_name("ahl")), "export", str(run.folder), "--out", str(tmp_path / "x.ahl")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and why in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(cuda.missing() is not None, reason=f"no GPU: {cuda.missing()}")
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_the_engine_scores_as_the_model(run: Run, graph: bytes, precision: str) -> None:
    pytest.importorskip("tensorrt", reason="tensorrt is not installed")
    evidence = Evidence(run)
    built = tensorrt_engine.build(graph, evidence, precision, lambda line: None)
    assert built.run is not None and list(built.files) == [tensorrt_engine.MODEL, tensorrt_engine.PLAN]
    assert departs(compare(built.run, evidence.gate, evidence.wanted), built.bounds) is None
