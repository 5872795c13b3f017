"""The kinds of engine: ahl's own, and those of plug-ins. The module of a kind is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.errors import EngineError
from ahl_runtime.core.plugins import Registry
from ahl_runtime.engines.base import CheckedEngine


class EngineModule(Protocol):
    """The functions of an engine's module. Each takes the engine's name first, and imports the library inside."""

    # Why this device cannot run the engine, and the way out. None if it can.
    missing: Callable[[str, Bundle, Artefact], str | None]
    # The engine. The number of threads: None for every core that this process may use. EngineError.
    load: Callable[[str, Bundle, Artefact, int | None], CheckedEngine]


class ParallelModule(EngineModule, Protocol):
    """A module whose engine can also score frames in parallel on several cores."""

    # An engine for a single frame, and one for as many frames in parallel as there are threads, 2 or more. EngineError.
    single_and_parallel: Callable[[str, Bundle, Artefact, int], tuple[CheckedEngine, CheckedEngine]]


@dataclass(frozen=True)
class EngineKind:
    """A kind of engine. `artefact`: the bundle's artefact that it runs. "onnxruntime" is the ONNX graph in float32.

    `module`: the dotted name of an `EngineModule`. `gpu`: it runs on a GPU, and is preferred to engines on the CPU.
    `parallel`: it scores frames in parallel by default, because this takes little memory. Its module is then a
    `ParallelModule`.
    """

    artefact: str
    module: str
    gpu: bool = False
    parallel: bool = False

    def load(self) -> EngineModule:
        """The module. EngineError."""
        try:
            found = import_module(self.module)
        except Exception as error:  # the import of a plug-in can raise anything
            raise EngineError(f"{self.module} cannot be imported ({type(error).__name__}: {error})") from error
        absent = [name for name in ("missing", "load") if not callable(getattr(found, name, None))]
        if absent:
            raise EngineError(f"{self.module} has no function {absent[0]}: see ahl_runtime.engines.kinds.EngineModule")
        return cast(EngineModule, found)

    def parallel_module(self) -> ParallelModule | None:
        """The module, or None if its engine cannot score frames in parallel. EngineError."""
        found = self.load()
        return cast(ParallelModule, found) if hasattr(found, "single_and_parallel") else None


TENSORRT = EngineKind("tensorrt", "ahl_runtime.engines.tensorrt", gpu=True)
TENSORRT_RTX = EngineKind("tensorrt-rtx", "ahl_runtime.engines.tensorrt_rtx", gpu=True)
ONNXRUNTIME_CUDA = EngineKind("onnxruntime", "ahl_runtime.engines.ort", gpu=True)
OPENVINO = EngineKind("openvino", "ahl_runtime.engines.openvino")
ONNXRUNTIME_INT8 = EngineKind("onnxruntime-int8", "ahl_runtime.engines.ort", parallel=True)
ONNXRUNTIME = EngineKind("onnxruntime", "ahl_runtime.engines.ort", parallel=True)

# In order of preference. Engines on the CPU are then sorted by the times that were measured at export.
ENGINES: Registry[EngineKind] = Registry(
    "ahl.engines",
    {
        "tensorrt": f"{__name__}:TENSORRT",
        "tensorrt-rtx": f"{__name__}:TENSORRT_RTX",
        "onnxruntime-cuda": f"{__name__}:ONNXRUNTIME_CUDA",
        "openvino": f"{__name__}:OPENVINO",
        "onnxruntime-int8": f"{__name__}:ONNXRUNTIME_INT8",
        "onnxruntime": f"{__name__}:ONNXRUNTIME",
    },
    "an ahl_runtime.engines.kinds.EngineKind",
    lambda value: isinstance(value, EngineKind),
    EngineError,
)
