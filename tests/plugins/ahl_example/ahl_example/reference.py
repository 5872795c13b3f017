"""An engine that runs the bundle's ONNX graph by ONNX's own reference implementation: slow and independent."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.types import Outputs
from ahl_runtime.engines.base import CheckedEngine
from ahl_runtime.engines.kinds import EngineKind

_OUTPUTS = ["score", "anomaly_map", "head_scores"]


def missing(engine: str, bundle: Bundle, artefact: Artefact) -> str | None:
    """Why it cannot run here, with the way out; None if it can."""
    return None if find_spec("onnx") else "onnx is not installed: pip install onnx"


def load(engine: str, bundle: Bundle, artefact: Artefact, threads: int | None) -> CheckedEngine:
    """The bundle's graph. It takes one thread, whatever `threads` says."""
    return ReferenceEngine(bundle.read(artefact.files[0]), engine)


class ReferenceEngine(CheckedEngine):
    """`model`: the ONNX file's bytes."""

    def __init__(self, model: bytes, name: str) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        self._name = name
        self._evaluator = ReferenceEvaluator(onnx.load_from_string(model))

    @property
    def name(self) -> str:
        return self._name

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        return Outputs(*self._evaluator.run(_OUTPUTS, {"image": images}))


REFERENCE = EngineKind("onnxruntime", __name__)
