"""Shared by both TensorRTs: the bounds of their graph, its proof on this machine, and the recipe to build it."""

from ahl_export.errors import ExportError
from ahl_export.verify.parity import Bounds, Closeness, Evidence, compare, departs
from ahl_runtime.engines.ort import OrtEngine
from ahl_runtime.engines.trt_build import Recipe

_LEAST, _MOST, _BATCH = 16, 2048, 8  # px, px, frames


def bounds(precision: str, unit: float = 1.0) -> Bounds:
    """The allowed difference between the model and a graph of that precision, on any engine; `unit`: for float16."""
    if precision == "float16":
        return Bounds(score=0.1, map=0.1, flips=0.01, rank=0.999, unit=unit)
    return Bounds(score=1e-3, map=1e-3, flips=0.0, rank=1 - 1e-6)


def prove(model: bytes, precision: str, evidence: Evidence, unit: float = 1.0) -> Closeness:
    """How far ``for_tensorrt``'s graph is from the model. ONNX Runtime runs the graph on the CPU, and rounds to float16
    operator by operator, as the graph says. This proves the graph, not the engine that a GPU builds. ExportError.
    """
    allowed = bounds(precision, unit)
    close = compare(OrtEngine(model), evidence.gate, evidence.wanted, allowed.unit)
    problem = departs(close, allowed)
    if problem:
        raise ExportError(
            f"the graph for TensorRT disagrees with the model in {precision}: {problem}"
            f"{': export with --trt-precision float32' if precision == 'float16' else ''}"
        )
    return close


def recipe(precision: str, evidence: Evidence, *, compatible: bool = False, hardware: str = "none") -> Recipe:
    """A recipe tuned for single frames like the training ones; allows batches of 8 and frames up to twice as large."""
    height, width = next(evidence.normals()).shape[:2]
    return Recipe.model_validate(
        {
            "precision": precision,
            "least": (1, _LEAST, _LEAST),
            "usual": (1, height, width),
            "most": (_BATCH, max(_MOST, 2 * height), max(_MOST, 2 * width)),
            "version_compatible": compatible,
            "hardware_compatible": hardware,
        }
    )
