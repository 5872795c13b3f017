"""TensorRT for RTX. The plan was compiled at export, for the GPUs that the artefact names."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.errors import EngineError
from ahl_runtime.engines import cuda, trt_build
from ahl_runtime.engines.base import CheckedEngine
from ahl_runtime.engines.tensorrt import missing_bindings
from ahl_runtime.engines.trt_run import TensorRtEngine


def missing(engine: str, bundle: Bundle, artefact: Artefact) -> str | None:
    """Why TensorRT for RTX cannot run here, with the way out; None if it can."""
    problem = cuda.missing()
    if problem:
        return problem
    built = artefact.extras.get("tensorrt_rtx")
    try:
        here = version("tensorrt_rtx")
    except PackageNotFoundError:
        return f"tensorrt-rtx is not installed: pip install cuda-bindings tensorrt-rtx=={built}"
    if here != built:
        return f"its plan runs only in tensorrt-rtx {built}, {here} is installed: pip install tensorrt-rtx=={built}"
    targets = [str(target) for target in artefact.extras.get("targets") or ()]
    try:
        found = cuda.device()
    except EngineError as error:
        return str(error)
    if found.capability not in targets:
        return (
            f"{found.name} is {found.capability}, the plan is for {', '.join(targets)}: "
            f"export with --trt-rtx {found.capability.lower()}"
        )
    return missing_bindings()


def load(engine: str, bundle: Bundle, artefact: Artefact, threads: int | None) -> CheckedEngine:
    """An engine for the bundle's plan. EngineError."""
    try:
        import tensorrt_rtx as trt
    except ImportError as error:
        raise EngineError(f"tensorrt_rtx cannot be loaded ({error}): install it again") from error
    recipe = trt_build.recipe(artefact.extras.get("recipe"))
    return TensorRtEngine(trt, bundle.read(artefact.files[0]), recipe, engine)
