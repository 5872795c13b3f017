"""TensorRT for RTX compiles without a GPU, in the types of the graph; what it cannot do is said in one line."""

from typing import Any

import pytest

from ahl_export.artefact import BuiltArtefact
from ahl_export.backends import tensorrt_rtx
from ahl_export.errors import ExportError
from ahl_export.graph.float16 import for_tensorrt
from ahl_export.verify.parity import Evidence
from ahl_runtime.core.errors import EngineError
from ahl_runtime.engines import cuda, trt_build
from ahl_train.run import Run

trt: Any = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx comes for x86-64 alone")


def test_names_of_gpus() -> None:
    assert tensorrt_rtx.targets(["sm89", " SM120", "sm89"]) == ("SM89", "SM120")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sm90", r"does not run on sm90 \(Hopper\): take --trt"),
        ("sm89,sm87", r"does not run on sm87 \(Jetson Orin\): take --trt"),
        ("ada", r"choose among sm75 \(Turing.*sm121"),
        ("", "choose among"),
        ("sm75,sm89", "Turing alone"),
    ],
)
def test_gpus_that_cannot_be_compiled_for(text: str, why: str) -> None:
    with pytest.raises(ExportError, match=why):
        tensorrt_rtx.targets(text.split(","))


def test_every_gpu_that_we_name_is_the_librarys() -> None:
    assert set(tensorrt_rtx._GPUS) == {n for n in vars(trt.ComputeCapability) if n.startswith("SM")}
    assert not set(tensorrt_rtx._ELSEWHERE) & set(vars(trt.ComputeCapability))


@pytest.fixture(scope="module")
def built(run: Run, graph: bytes) -> BuiltArtefact:
    return tensorrt_rtx.build(graph, Evidence(run), ("SM89",), "float16", lambda line: None)


@pytest.mark.slow
def test_an_engine_for_ada_is_built_in_float16(built: BuiltArtefact, graph: bytes) -> None:
    (plan,) = built.files.values()
    assert built.extras["targets"] == ["SM89"] and built.extras["tensorrt_rtx"] == trt.__version__
    assert built.extras["layers"]["float16"] > 50
    assert built.extras["weights"] < 0.75 * len(graph) and built.extras["weights"] < len(plan)
    assert built.run is None


@pytest.mark.slow
def test_a_damaged_plan_does_not_load_even_so_far(built: BuiltArtefact) -> None:
    (plan,) = built.files.values()
    made = trt_build.recipe(built.extras["recipe"])
    for damaged in (plan[: len(plan) // 2], b"junk" * 1000):
        with pytest.raises(ExportError, match=r"does not load .*Serialization"):
            tensorrt_rtx.check_whole(trt, damaged, made)


@pytest.mark.slow
def test_float32_keeps_its_weights(run: Run, graph: bytes, built: BuiltArtefact) -> None:
    whole = tensorrt_rtx.build(graph, Evidence(run), ("SM86", "SM89", "SM120"), "float32", lambda line: None)
    assert set(whole.extras["layers"]) == {"float32"}
    assert whole.extras["weights"] > 1.4 * built.extras["weights"]


@pytest.mark.slow
def test_turing_wants_half_precision_products(run: Run, graph: bytes) -> None:
    with pytest.raises(EngineError, match="Turing") as caught:
        tensorrt_rtx.build(graph, Evidence(run), ("SM75",), "float16", lambda line: None)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_precision_that_is_not_in_the_graph_is_no_engine(run: Run, graph: bytes, built: BuiltArtefact) -> None:
    made = trt_build.recipe(built.extras["recipe"])
    with pytest.raises(EngineError, match=r"the recipe asks for float16, but .* are \d+ in float32"):
        trt_build.build(trt, for_tensorrt(graph, "float32"), made, targets=("SM89",))
    with pytest.raises(EngineError, match="the recipe asks for float32"):
        whole = made.model_copy(update={"precision": "float32"})
        trt_build.build(trt, for_tensorrt(graph, "float16"), whole, targets=("SM89",))


@pytest.mark.slow
def test_the_graph_as_it_is_cannot_be_read(graph: bytes, built: BuiltArtefact) -> None:
    made = trt_build.recipe(built.extras["recipe"])
    for model in (graph, b"junk"):
        with pytest.raises(EngineError, match="cannot read the graph: ") as caught:
            trt_build.build(trt, model, made, targets=("SM89",))
        assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(cuda.missing() is not None, reason=f"no GPU: {cuda.missing()}")
def test_the_plan_scores_as_the_model(run: Run, graph: bytes) -> None:
    from ahl_export.verify.parity import compare, departs
    from ahl_runtime.engines.trt_run import TensorRtEngine

    evidence, here = Evidence(run), cuda.device().capability
    if here not in tensorrt_rtx._GPUS:
        pytest.skip(f"TensorRT for RTX does not run on {here}")
    made = tensorrt_rtx.build(graph, evidence, (here,), "float16", lambda line: None)
    engine = TensorRtEngine(trt, next(iter(made.files.values())), trt_build.recipe(made.extras["recipe"]), made.engine)
    assert departs(compare(engine, evidence.gate, evidence.wanted), made.bounds) is None
