"""The kinds of engine: ahl's own, and those of plug-ins. A kind's module is imported when it may run."""

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
    """What an engine's module gives: functions of the engine's name first. It imports its library inside them only."""

    # Why this device cannot run it, and the way out; None if it can.
    missing: Callable[[str, Bundle, Artefact], str | None]
    # With its number of threads: None for every core that this process may use. EngineError.
    load: Callable[[str, Bundle, Artefact, int | None], CheckedEngine]


class PairModule(EngineModule, Protocol):
    """A module whose engine scores frames side by side too, where there are several cores."""

    # With its number of threads, more than one: for a frame alone, and for so many side by side. EngineError.
    pair: Callable[[str, Bundle, Artefact, int], tuple[CheckedEngine, CheckedEngine]]


@dataclass(frozen=True)
class EngineKind:
    """A kind of engine. `artefact`: the one of a bundle that it runs; "onnxruntime" is the ONNX graph in float32.

    `module`: the dotted name of an `EngineModule`. `gpu`: faster than any engine on the CPU. `beside`: frames side by
    side take so little memory that they are scored so unless one says otherwise; the module is a `PairModule`.
    """

    artefact: str
    module: str
    gpu: bool = False
    beside: bool = False

    def load(self) -> EngineModule:
        """The module. EngineError."""
        try:
            found = import_module(self.module)
        except Exception as error:  # whatever the import of someone else's module raises
            raise EngineError(f"{self.module} cannot be imported ({type(error).__name__}: {error})") from error
        absent = [name for name in ("missing", "load") if not callable(getattr(found, name, None))]
        if absent:
            raise EngineError(f"{self.module} has no function {absent[0]}: see ahl_runtime.engines.kinds.EngineModule")
        return cast(EngineModule, found)

    def pair_module(self) -> PairModule | None:
        """The module, if its engine scores frames side by side. EngineError."""
        found = self.load()
        return cast(PairModule, found) if hasattr(found, "pair") else None


TENSORRT = EngineKind("tensorrt", "ahl_runtime.engines.tensorrt", gpu=True)
TENSORRT_RTX = EngineKind("tensorrt-rtx", "ahl_runtime.engines.tensorrt_rtx", gpu=True)
ONNXRUNTIME_CUDA = EngineKind("onnxruntime", "ahl_runtime.engines.ort", gpu=True)
OPENVINO = EngineKind("openvino", "ahl_runtime.engines.openvino")
ONNXRUNTIME_INT8 = EngineKind("onnxruntime-int8", "ahl_runtime.engines.ort", beside=True)
ONNXRUNTIME = EngineKind("onnxruntime", "ahl_runtime.engines.ort", beside=True)

# By preference. Engines on the CPU are ordered by what was measured where the bundle was exported.
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
