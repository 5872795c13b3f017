"""The artefact for TensorRT for RTX: a plan compiled here, without a GPU, for the named GPUs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from ahl_export.artefact import BuiltArtefact
from ahl_export.backends.tensorrt import described
from ahl_export.backends.trt_proof import bounds, prove, recipe
from ahl_export.errors import ExportError
from ahl_export.graph.float16 import for_tensorrt
from ahl_export.verify.parity import Evidence
from ahl_runtime.engines import trt_build

ENGINE = "tensorrt-rtx"
PLAN = "engines/tensorrt-rtx.plan"
_GPUS = {
    "SM75": "Turing: RTX 20, T4",
    "SM80": "Ampere: A100",
    "SM86": "Ampere: RTX 30, A10",
    "SM89": "Ada: RTX 40, L4",
    "SM120": "Blackwell: RTX 50",
    "SM121": "Blackwell: DGX Spark",
}
_ELSEWHERE = {"SM87": "Jetson Orin", "SM90": "Hopper", "SM100": "Blackwell for data centres", "SM110": "Jetson Thor"}


def targets(names: Sequence[str]) -> tuple[str, ...]:
    """`sm86`, `sm89` as SM86, SM89, each once. ExportError for an unsupported GPU, with the way out."""
    found = tuple(dict.fromkeys(name.strip().upper() for name in names))
    for name in found:
        if name in _ELSEWHERE:
            raise ExportError(
                f"TensorRT for RTX does not run on {name.lower()} ({_ELSEWHERE[name]}): take --trt for it"
            )
        if name not in _GPUS:
            known = ", ".join(f"{n.lower()} ({gpus})" for n, gpus in _GPUS.items())
            raise ExportError(f"--trt-rtx {name.lower() or 'nothing'}: choose among {known}")
    if "SM75" in found and len(found) > 1:
        raise ExportError("--trt-rtx sm75: a plan for Turing is for Turing alone: name it without the others")
    return found


def build(
    graph: bytes,
    evidence: Evidence,
    wanted: tuple[str, ...],
    precision: str,
    report: Callable[[str], None],
    *,
    unit: float = 1.0,
) -> BuiltArtefact:
    """One plan for all of `wanted`, as from ``targets``. The plan cannot run here, so its graph is proven on the CPU.

    `unit`: as in ``Bounds``. ExportError, EngineError.
    """
    import tensorrt_rtx

    model = for_tensorrt(graph, precision)
    close = prove(model, precision, evidence, unit)
    made = recipe(precision, evidence)
    started = time.perf_counter()
    plan = trt_build.build(tensorrt_rtx, model, made, targets=wanted)
    seconds = time.perf_counter() - started
    check_whole(tensorrt_rtx, plan.data, made)
    report(
        f"tensorrt-rtx: compiled for {', '.join(wanted)} in {seconds:.1f} s, {len(plan.data) / 1e6:.1f} MB; its graph: "
        f"scores within {close.score_max:.1e}, maps within {close.map_max:.1e}, on the CPU"
    )
    extras = {
        "tensorrt_rtx": version("tensorrt_rtx"),
        "targets": list(wanted),
        "recipe": made.model_dump(mode="json"),
        "layers": dict(plan.types),
        "weights": plan.weights,
        "build_seconds": round(seconds, 2),
        "graph_on_cpu": asdict(close),
    }
    found = bounds(precision, unit)
    return BuiltArtefact(ENGINE, {PLAN: plan.data}, described(precision), found, found.score * found.unit, None, extras)


def check_whole(trt: Any, plan: bytes, made: trt_build.Recipe) -> None:
    """Load the plan as far as possible. Without a GPU TensorRT reads its header and size, then fails to get a stream.

    ExportError if it fails before that.
    """
    log = trt_build.logger(trt)
    if trt.Runtime(log).deserialize_cuda_engine(plan) is None:
        message = trt_build.line(log.first_error())
        if "Cuda Runtime" not in message:
            raise ExportError(f"the plan that TensorRT for RTX made does not load ({message}): export again")
