"""The artefact for TensorRT 10 and 11: a graph with its precision, a recipe, and a plan if this machine has a GPU."""

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ahl_export.artefact import BuiltArtefact
from ahl_export.backends.trt_proof import bounds, prove, recipe
from ahl_export.graph.float16 import for_tensorrt
from ahl_export.verify.parity import Evidence
from ahl_runtime.engines import cuda, trt_build
from ahl_runtime.engines.tensorrt import describe
from ahl_runtime.engines.trt_run import TensorRtEngine

ENGINE = "tensorrt"
MODEL, PLAN = "engines/tensorrt.onnx", "engines/tensorrt.plan"


def build(
    graph: bytes,
    evidence: Evidence,
    precision: str,
    report: Callable[[str], None],
    *,
    unit: float = 1.0,
    compatible: bool = False,
    hardware: str = "none",
) -> BuiltArtefact:
    """The graph and the recipe; also the plan and the engine if this machine has `tensorrt` and a GPU.

    Without them the device builds the engine on its first start, and only the graph is proven, on the CPU. `unit`: as
    in ``Bounds``. `compatible`: a plan that later versions and the lean runtime can load. `hardware`: none, ampere or
    same, see ``Recipe``. ExportError, EngineError.
    """
    model = for_tensorrt(graph, precision)
    made = recipe(precision, evidence, compatible=compatible, hardware=hardware)
    close = prove(model, precision, evidence, unit)
    files = {MODEL: model}
    extras: dict[str, Any] = {"recipe": made.model_dump(mode="json"), "graph_on_cpu": asdict(close)}
    run = None
    problem = cuda.missing() or (None if find_spec("tensorrt") else "tensorrt is not installed")
    if problem:
        report(
            f"tensorrt: {problem}: the device builds the engine on its first start; its graph: scores within "
            f"{close.score_max:.1e}, maps within {close.map_max:.1e}, on the CPU"
        )
    else:
        trt = import_module("tensorrt")
        plan = trt_build.build(trt, model, made)
        run = TensorRtEngine(trt, plan.data, made, ENGINE)
        files[PLAN] = plan.data
        extras |= {"plan": describe(trt, cuda.device()), "layers": dict(run.precisions)}
    found = bounds(precision, unit)
    return BuiltArtefact(ENGINE, files, described(precision), found, found.score * found.unit, run, extras)


def described(precision: str) -> str:
    """The manifest's text for a precision."""
    return "backbone float16, the rest float32" if precision == "float16" else "float32, without TF32"
