"""OpenVINO on the CPU. It reads the IR from the bundle in memory and writes no files."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core import memory
from ahl_runtime.core.errors import EngineError
from ahl_runtime.core.types import Outputs
from ahl_runtime.engines.base import CheckedEngine, cores, reason

_OUTPUTS = ("score", "anomaly_map", "head_scores")


def missing(engine: str, bundle: Bundle, artefact: Artefact) -> str | None:
    """Why OpenVINO cannot run here, with the way out; None if it can."""
    return None if find_spec("openvino") else "openvino is not installed: pip install 'ahl[openvino]'"


def load(engine: str, bundle: Bundle, artefact: Artefact, threads: int | None) -> CheckedEngine:
    """An engine for the bundle's IR: the xml file, then the bin file. EngineError."""
    return OpenVinoEngine(_ir(bundle, artefact), threads, engine)


def single_and_parallel(
    engine: str, bundle: Bundle, artefact: Artefact, threads: int
) -> tuple[CheckedEngine, CheckedEngine]:
    """An engine for a single frame, and one for `threads` frames in parallel. They share weights. EngineError."""
    model = _ir(bundle, artefact)
    single = OpenVinoEngine(model, threads, engine)
    memory.trim()  # return the memory of the first compilation before the second
    return single, OpenVinoEngine(model, threads, engine, streams=threads)


def _ir(bundle: Bundle, artefact: Artefact) -> Any:
    xml, weights = artefact.files
    return read(bundle.read(xml), bundle.read(weights))


class OpenVinoEngine(CheckedEngine):
    """`model`: an IR from `read`. `threads`: None for every core of this process.

    `streams`: how many frames the engine scores in parallel. The streams share the threads. A single frame is fastest
    with 1. The engine computes in float32, whatever the type of the stored weights. It scores the frames of a batch
    one after the other, because the bundle's IR takes one frame. EngineError if the IR cannot be compiled or is not
    the bundle's graph.
    """

    def __init__(self, model: Any, threads: int | None = None, name: str = "openvino", streams: int = 1) -> None:
        self._name = name
        self.threads = cores(threads)
        self._compiled = compiled(model, self.threads, streams)
        given = {n for output in self._compiled.outputs for n in output.names}
        absent = [n for n in _OUTPUTS if n not in given]
        if absent or [i.any_name for i in self._compiled.inputs] != ["image"]:
            raise EngineError(f"{name}: the IR lacks {', '.join(absent) or 'its input image'}: export the bundle again")
        self._own = threading.local()  # each thread has its own request: a request runs one frame at a time

    @property
    def name(self) -> str:
        return self._name

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        try:
            if not hasattr(self._own, "request"):
                self._own.request = self._compiled.create_infer_request()
            return Outputs.joined([self._one(images[i : i + 1]) for i in range(len(images))])
        except RuntimeError as error:
            raise EngineError(f"{self.name}: {reason(error)} on frames {list(images.shape)}") from error

    def _one(self, image: NDArray[np.uint8]) -> Outputs:
        found = self._own.request.infer({"image": image}, share_inputs=True)
        return Outputs(*(np.array(found[name]) for name in _OUTPUTS))


def read(model: bytes, weights: bytes) -> Any:
    """An openvino.Model of the bytes of an IR's xml and bin, or of ONNX's with empty `weights`. EngineError.

    Weights that are stored in float16 are converted to float32 here, once for all compilations of the model.
    """
    try:
        import openvino
        from openvino import opset13
    except ImportError as error:
        raise EngineError(f"openvino cannot be loaded ({error}): pip install 'ahl[openvino]'") from error
    try:
        found = openvino.Core().read_model(model=model, weights=weights)
    except RuntimeError as error:
        raise EngineError(f"openvino: the IR cannot be loaded ({reason(error)}): export the bundle again") from error
    for widening in found.get_ordered_ops():
        if widening.get_type_name() == "Convert" and widening.get_element_type() == openvino.Type.f32:
            stored = widening.input_value(0).get_node()
            if stored.get_type_name() == "Constant":
                widening.output(0).replace(opset13.constant(stored.data.astype(np.float32)).output(0))
    return found


def compiled(model: Any, threads: int, streams: int = 1) -> Any:
    """An openvino.CompiledModel of a model from `read`. EngineError."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # some CPUs would use bfloat16: scores would exceed their tolerance
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # With fewer threads than cores, each session would pin itself to the same first cores.
        "ENABLE_CPU_PINNING": threads == cores(None),
        # By default OpenVINO caches prepared code for each new frame size, up to 5000 entries of 6.5 MB.
        "CPU_RUNTIME_CACHE_CAPACITY": "0",
    }
    try:
        return openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise EngineError(f"openvino: the IR cannot be loaded ({reason(error)}): export the bundle again") from error
