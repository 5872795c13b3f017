"""TensorRT on the device: why it cannot run, what it is asked to build, where it keeps it, what it says it runs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.errors import EngineError
from ahl_runtime.engines import cuda, tensorrt, trt_build, trt_run
from ahl_runtime.score import selfcheck

RECIPE: dict[str, Any] = {"precision": "float16", "least": [1, 16, 16], "usual": [1, 300, 300], "most": [8, 2048, 2048]}
NO_GPU = pytest.mark.skipif(cuda.missing() is None, reason="says what is said where there is no GPU")
ORIN = cuda.Device("Orin", "SM87", 12060)
VERSION = SimpleNamespace(__version__="10.3.0")


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], parts: tuple[dict[str, Any], dict[str, Any]]) -> Path:
    first = parts[0]["artefacts"][0]
    both = [
        first,
        {**first, "engine": "tensorrt", "extras": {"recipe": RECIPE}},
        {**first, "engine": "tensorrt-rtx", "extras": {"recipe": RECIPE, "targets": ["SM89"], "tensorrt_rtx": "1.7"}},
    ]
    return make_bundle(fields={"artefacts": both})


@NO_GPU
def test_check_says_why_it_is_not_here(bundle: Path) -> None:
    report = selfcheck.check(open_bundle(bundle), threads=1)
    by_name = {c.engine: c for c in report.checks}
    assert report.passed and report.chosen == "onnxruntime"
    for name in ("tensorrt", "tensorrt-rtx"):
        assert by_name[name].passed is None
        assert "NVIDIA" in (by_name[name].error or "")


@NO_GPU
def test_asked_for_by_name_it_is_one_line(bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"tensorrt cannot run here: .*NVIDIA") as caught:
        engines.load(open_bundle(bundle), "tensorrt")
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="NVIDIA"):
        cuda.device()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (None, "valid dictionary"),
        ({**RECIPE, "precision": "int4"}, "precision"),
        ({**RECIPE, "most": [8, 0, 4]}, "most.1"),
        ({**RECIPE, "warp": 9}, "warp"),
    ],
)
def test_a_recipe_of_another_version_is_refused(wrong: object, why: str) -> None:
    with pytest.raises(EngineError, match=f"recipe cannot be read .*{why}.*: update ahl-runtime or export again"):
        trt_build.recipe(wrong)


def test_a_plan_is_kept_by_graph_recipe_gpu_driver_and_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AHL_CACHE", str(tmp_path))
    made = trt_build.recipe(RECIPE)
    whole = made.model_copy(update={"precision": "float32"})
    places = [
        tensorrt.cached(b"graph", made, VERSION, ORIN),
        tensorrt.cached(b"other", made, VERSION, ORIN),
        tensorrt.cached(b"graph", whole, VERSION, ORIN),
        tensorrt.cached(b"graph", made, SimpleNamespace(__version__="10.4.0"), ORIN),
        tensorrt.cached(b"graph", made, VERSION, replace(ORIN, name="Thor")),
        tensorrt.cached(b"graph", made, VERSION, replace(ORIN, driver=13000)),
    ]
    assert len(set(places)) == len(places)
    assert places[0] == tensorrt.cached(b"graph", made, VERSION, ORIN)
    assert {p.parent for p in places} == {tmp_path / "engines"}


@pytest.mark.parametrize(
    ("flags", "change", "fits"),
    [
        ({}, {}, True),
        ({}, {"tensorrt": "10.2.0"}, False),
        ({}, {"gpu": "A10"}, False),
        ({}, {"platform": "Windows AMD64"}, False),
        ({"version_compatible": True}, {"tensorrt": "10.2.0"}, True),
        ({"version_compatible": True}, {"tensorrt": "11.0.0"}, False),
        ({"version_compatible": True}, {"gpu": "A10"}, False),
        ({"hardware_compatible": "ampere"}, {"gpu": "A10", "capability": "SM86"}, True),
        ({"hardware_compatible": "same"}, {"gpu": "Orin NX"}, True),
        ({"hardware_compatible": "same"}, {"gpu": "A10", "capability": "SM86"}, False),
    ],
)
def test_which_carried_plan_fits(flags: dict[str, Any], change: dict[str, str], fits: bool) -> None:
    here = tensorrt.describe(VERSION, ORIN)
    made = trt_build.recipe({**RECIPE, **flags})
    assert tensorrt._fits({**here, **change}, made, here) is fits
    assert not tensorrt._fits(None, made, here)


# As TensorRT 10 and 11 write it.
TEN = {
    "Name": "conv",
    "Outputs": [{"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
}
ELEVEN = {"Name": "conv", "Outputs": [{"Name": "x", "DataType": "Half"}]}
WHOLE = {"Name": "resize", "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}]}
FUSED = {"Name": "{ForeignNode[a...b]}", "Outputs": [{"Name": "z", "DataType": "Float"}]}


def test_what_an_engine_runs_is_read_from_its_inspector() -> None:
    text = json.dumps({"Layers": [TEN, ELEVEN, WHOLE, FUSED, "a name alone"], "Bindings": ["image"]})
    assert trt_run.read_precisions(text) == {"float16": 2, "float32": 2, "fused": 2}


def test_an_engine_in_float32_does_not_pass_for_float16() -> None:
    half = trt_build.recipe(RECIPE)
    with pytest.raises(EngineError, match="the recipe asks for float16, but the engine has 90 layers in float32"):
        trt_run.check_precisions("tensorrt", half, {"float32": 90})
    with pytest.raises(EngineError, match="the recipe asks for float32"):
        whole = half.model_copy(update={"precision": "float32"})
        trt_run.check_precisions("tensorrt", whole, {"float32": 1, "float16": 80})
    trt_run.check_precisions("tensorrt", half, {"float32": 9, "float16": 81})


@pytest.mark.gpu
@pytest.mark.skipif(cuda.missing() is not None, reason=f"no GPU: {cuda.missing()}")
def test_the_gpu_is_described() -> None:
    found = cuda.device()
    assert found.name and found.capability.startswith("SM") and found.driver >= 12000
