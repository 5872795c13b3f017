"""ONNX Runtime: on the CPU, the engine that every device has; on CUDA where its GPU package is installed."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.errors import EngineError
from ahl_runtime.core.types import Outputs
from ahl_runtime.engines import cuda, tuned
from ahl_runtime.engines.base import CheckedEngine, cores, reason
from ahl_runtime.engines.tuned import SessionOptions

OUTPUTS = ["score", "anomaly_map", "head_scores"]


CUDA = "onnxruntime-cuda"


def missing(engine: str, bundle: Bundle, artefact: Artefact) -> str | None:
    """Why ONNX Runtime cannot run here, with the way out; None if it can."""
    if not find_spec("onnxruntime"):
        return "onnxruntime is not installed: pip install onnxruntime"
    if engine != CUDA:
        return None
    if problem := cuda.missing():
        return problem
    import onnxruntime  # not before: where another engine runs, it would be 15 MB for nothing

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "onnxruntime is the CPU package: pip uninstall onnxruntime, then pip install onnxruntime-gpu (x86 only)"
    return None


def load(engine: str, bundle: Bundle, artefact: Artefact, threads: int | None) -> CheckedEngine:
    """The bundle's ONNX graph, as this device was tuned for it (`ahl_runtime.engines.tuned`). EngineError."""
    options = SessionOptions() if engine == CUDA else tuned.options(bundle, engine)
    return OrtEngine(bundle.read(artefact.files[0]), threads, engine, options)


def pair(engine: str, bundle: Bundle, artefact: Artefact, threads: int) -> tuple[CheckedEngine, CheckedEngine]:
    """For a frame alone, and for frames side by side: threads of one session would wait at every layer. EngineError."""
    return load(engine, bundle, artefact, threads), load(engine, bundle, artefact, 1)


class OrtEngine(CheckedEngine):
    """`model`: the ONNX file's bytes. `threads`: at least 1, None for those of `options`.

    `name`: CUDA runs on the GPU, in float32 without TF32; any other on the CPU. EngineError if the model cannot be
    loaded or is not the bundle's graph.
    """

    def __init__(
        self,
        model: bytes,
        threads: int | None = None,
        name: str = "onnxruntime",
        options: SessionOptions = SessionOptions(),  # noqa: B008 (frozen)
    ) -> None:
        self._name = name
        self.threads = cores(options.threads if threads is None else threads)
        self._session = session(model, self.threads, name == CUDA, options)
        given = {o.name for o in self._session.get_outputs()}
        missing = [name for name in OUTPUTS if name not in given]
        if missing or [i.name for i in self._session.get_inputs()] != ["image"]:
            raise EngineError(
                f"{self.name}: the graph takes {', '.join(i.name for i in self._session.get_inputs())} and gives "
                f"{', '.join(sorted(given))}, expected image and {', '.join(OUTPUTS)}: export the bundle again"
            )

    @property
    def name(self) -> str:
        return self._name

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        try:
            return Outputs(*self._session.run(OUTPUTS, {"image": images}))
        except Exception as error:  # ONNX Runtime's errors have no common base below Exception
            raise EngineError(f"{self.name}: {reason(error)} on frames {list(images.shape)}") from error


@cache
def _share_arena() -> None:
    """Sessions of this process take turns in the same memory, which grows by what is asked for and no more."""
    import onnxruntime as ort

    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({"arena_extend_strategy": 1}))


def _load_cuda() -> None:
    """Load CUDA and cuDNN from pip's packages, where the system's loader does not look for them."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with redirect_stdout(sys.stderr):  # it prints what it does not find; on stdout may be JSON lines
            onnxruntime.preload_dlls()


def session(model: bytes, threads: int, on_cuda: bool, chosen: SessionOptions) -> Any:
    """An onnxruntime.InferenceSession of any ONNX file's bytes. EngineError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be loaded ({error}): pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graph is one road: nothing in it runs side by side
    # Threads that spin while they wait take the cores from cameras, sinks and the server.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(chosen.spinning)))
    options.enable_cpu_mem_arena = chosen.arena
    options.enable_mem_pattern = False  # one block for all of a frame, planned ahead: a third more memory, no faster
    if chosen.arena and not on_cuda:
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{chosen.optimisation.upper()}"
    )
    options.log_severity_level = 4  # errors are raised; a second copy on stderr helps no one
    providers: list[Any] = ["CPUExecutionProvider"]
    if on_cuda:
        # TF32 has a mantissa of 10 bits: scores would leave the bounds that the bundle was proven in.
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        _load_cuda()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors have no common base below Exception
        raise EngineError(
            f"onnxruntime: the model cannot be loaded ({reason(error)}): export the bundle again"
        ) from error
    session.disable_fallback()  # a GPU that fails is told, not left for the CPU
    session._model_bytes = b""  # held for that fallback alone: 16 MB
    if on_cuda and session.get_providers()[0] != "CUDAExecutionProvider":
        raise EngineError(
            f"{CUDA}: its libraries cannot be loaded: install the CUDA and cuDNN that onnxruntime-gpu needs"
        )
    return session
