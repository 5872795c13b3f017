"""ONNX Runtime. It runs on the CPU of every device, and on CUDA if its GPU package is installed."""

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
    import onnxruntime  # here: the import takes 15 MB, which other engines do not need

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "onnxruntime is the CPU package: pip uninstall onnxruntime, then pip install onnxruntime-gpu (x86 only)"
    return None


def load(engine: str, bundle: Bundle, artefact: Artefact, threads: int | None) -> CheckedEngine:
    """An engine for the bundle's ONNX graph, with this device's tuned options (`engines.tuned`). EngineError."""
    options = SessionOptions() if engine == CUDA else tuned.options(bundle, engine)
    return OrtEngine(bundle.read(artefact.files[0]), threads, engine, options)


def single_and_parallel(
    engine: str, bundle: Bundle, artefact: Artefact, threads: int
) -> tuple[CheckedEngine, CheckedEngine]:
    """An engine for a single frame on all threads, and one for frames in parallel. EngineError.

    The second uses one thread for each frame, because the threads of one call wait for each other at every layer.
    """
    return load(engine, bundle, artefact, threads), load(engine, bundle, artefact, 1)


class OrtEngine(CheckedEngine):
    """`model`: the bytes of the ONNX file. `threads`: at least 1; None for `options.threads`.

    `name`: the name `CUDA` runs on the GPU, in float32 without TF32. Any other name runs on the CPU. EngineError if
    the model cannot be loaded or is not the bundle's graph.
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
    """Let all sessions of this process share one memory arena, which grows by no more than what is requested."""
    import onnxruntime as ort

    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({"arena_extend_strategy": 1}))


def _load_cuda() -> None:
    """Load CUDA and cuDNN from pip packages, because the system's loader does not find them there."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with redirect_stdout(sys.stderr):  # it prints the libraries that it does not find; stdout is for JSON lines
            onnxruntime.preload_dlls()


def session(model: bytes, threads: int, on_cuda: bool, chosen: SessionOptions) -> Any:
    """An onnxruntime.InferenceSession for the bytes of any ONNX file. EngineError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be loaded ({error}): pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graph is sequential: no two nodes could run in parallel
    # Threads that spin while they wait take CPU time from cameras, sinks and the server.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(chosen.spinning)))
    options.enable_cpu_mem_arena = chosen.arena
    options.enable_mem_pattern = False  # planning memory ahead takes a third more memory and is not faster
    if chosen.arena and not on_cuda:
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{chosen.optimisation.upper()}"
    )
    options.log_severity_level = 4  # errors are raised, so do not also print them on stderr
    providers: list[Any] = ["CPUExecutionProvider"]
    if on_cuda:
        # TF32 has a mantissa of 10 bits: scores would exceed the bounds that were verified at export.
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        _load_cuda()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors have no common base below Exception
        raise EngineError(
            f"onnxruntime: the model cannot be loaded ({reason(error)}): export the bundle again"
        ) from error
    session.disable_fallback()  # if the GPU fails, raise an error instead of a silent switch to the CPU
    session._model_bytes = b""  # 16 MB that only this fallback needs
    if on_cuda and session.get_providers()[0] != "CUDAExecutionProvider":
        raise EngineError(
            f"{CUDA}: its libraries cannot be loaded: install the CUDA and cuDNN that onnxruntime-gpu needs"
        )
    return session
