"""ONNX Runtime on the CPU: the engine that every device has."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.engines.base import CheckedEngine
from ahl_runtime.errors import EngineError
from ahl_runtime.types import Outputs

OUTPUTS = ["score", "anomaly_map", "head_scores"]


class OrtEngine(CheckedEngine):
    """`model`: the ONNX file's bytes. `threads`: at least 1, None for every core that this process may use.

    EngineError if the model cannot be loaded or is not the bundle's graph.
    """

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise EngineError(f"threads is {threads}: expected 1 or more")
        self.threads = threads or _cores()
        self._session = _session(model, self.threads)
        given = {o.name for o in self._session.get_outputs()}
        missing = [name for name in OUTPUTS if name not in given]
        if missing or [i.name for i in self._session.get_inputs()] != ["image"]:
            raise EngineError(
                f"{self.name}: the graph takes {', '.join(i.name for i in self._session.get_inputs())} and gives "
                f"{', '.join(sorted(given))}, expected image and {', '.join(OUTPUTS)}: export the bundle again"
            )

    @property
    def name(self) -> str:
        return "onnxruntime"

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        try:
            return Outputs(*self._session.run(OUTPUTS, {"image": images}))
        except Exception as error:  # ONNX Runtime's errors have no common base below Exception
            raise EngineError(f"{self.name}: {_reason(error)} on frames {list(images.shape)}") from error


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _session(model: bytes, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be loaded ({error}): pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graph is one road: nothing in it runs side by side
    # Threads that spin while they wait take the cores from cameras, sinks and the server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised; a second copy on stderr helps no one
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base below Exception
        raise EngineError(
            f"onnxruntime: the model cannot be loaded ({_reason(error)}): export the bundle again"
        ) from error


def _reason(error: Exception) -> str:
    """ONNX Runtime's message in one line, at most 300 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "..."
