"""Run a plan of TensorRT or TensorRT for RTX on the GPU, and inspect the precision of its layers."""

from __future__ import annotations

import json
import re
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.errors import EngineError
from ahl_runtime.core.types import Outputs
from ahl_runtime.engines.base import CheckedEngine
from ahl_runtime.engines.trt_build import Recipe, line, logger

_OUTPUTS = ("score", "anomaly_map", "head_scores")
# The names of tensor types in TensorRT 10 ("Channel major FP16 format") and 11 ("Half").
_TYPES = (("float16", r"\b(FP16|Half)\b"), ("float32", r"\b(FP32|Float)\b"), ("int8", r"\b(INT8|Int8)\b"))


class TensorRtEngine(CheckedEngine):
    """`trt`: the module `tensorrt`, `tensorrt_lean` or `tensorrt_rtx`. `plan`: the serialised engine.

    EngineError if the plan cannot be loaded here, is not the bundle's graph, or does not run in the recipe's
    precision. EngineError also for frames outside the recipe's profile.
    """

    def __init__(self, trt: Any, plan: bytes, recipe: Recipe, name: str) -> None:
        self._name, self._recipe = name, recipe
        self._log = logger(trt)
        self._engine = deserialise(trt, plan, recipe, self._log)
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        if names != {"image", *_OUTPUTS}:
            raise EngineError(f"{name}: the engine has {', '.join(sorted(names))}: export the bundle again")
        self.precisions = precisions(trt, self._engine)
        check_precisions(name, recipe, self.precisions)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{name}: the GPU has no memory for the engine ({line(self._log.first_error())})")
        self._memory = _Memory(name)
        self._lock = threading.Lock()  # all threads share one context and one set of buffers

    @property
    def name(self) -> str:
        return self._name

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        size, least, most = images.shape[:3], self._recipe.least, self._recipe.most
        if not all(low <= n <= high for low, n, high in zip(least, size, most, strict=True)):
            raise EngineError(
                f"{self.name}: frames [N, H, W] {list(size)} are outside the engine's {list(least)} to {list(most)}: "
                "choose another engine, or export with frames of this size"
            )
        with self._lock:
            return self._one(images)

    def _one(self, images: NDArray[np.uint8]) -> Outputs:
        if not self._context.set_input_shape("image", images.shape):
            raise EngineError(f"{self.name}: {line(self._log.first_error())} on frames {list(images.shape)}")
        found = {n: np.empty(tuple(self._context.get_tensor_shape(n)), np.float32) for n in _OUTPUTS}
        for tensor, array in {"image": images, **found}.items():
            self._context.set_tensor_address(tensor, self._memory.room(tensor, array.nbytes))
        self._memory.upload("image", images)
        if not self._context.execute_async_v3(self._memory.stream):
            raise EngineError(f"{self.name}: {line(self._log.first_error())} on frames {list(images.shape)}")
        for tensor, array in found.items():
            self._memory.download(tensor, array)
        self._memory.wait()
        return Outputs(*found.values())


def deserialise(trt: Any, plan: bytes, recipe: Recipe, log: Any) -> Any:
    """Load the engine of a plan. EngineError, with the library's reason, if this fails here."""
    runtime = trt.Runtime(log)
    if recipe.version_compatible:
        runtime.engine_host_code_allowed = True  # such a plan contains the lean runtime that it was built with
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{trt.__name__} {trt.__version__} cannot load the engine: {line(log.first_error())}")
    return engine


def precisions(trt: Any, engine: Any) -> dict[str, int]:
    """Count the engine's layers by output type, as its inspector reports them. `fused`: layers without details."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return read_precisions(text)


def read_precisions(text: str) -> dict[str, int]:
    """`precisions` from the inspector's JSON. A layer without a type, or one that joins many, counts as fused."""
    found: Counter[str] = Counter()
    for layer in json.loads(text)["Layers"]:
        given = json.dumps(layer["Outputs"]) if isinstance(layer, dict) and "Outputs" in layer else ""
        name = layer.get("Name", "") if isinstance(layer, dict) else str(layer)
        types = [kind for kind, pattern in _TYPES if re.search(pattern, given)]
        if "ForeignNode" in name or not types:
            found["fused"] += 1
        found.update(types)
    return dict(found)


def check_precisions(name: str, recipe: Recipe, found: Mapping[str, int]) -> None:
    """EngineError if the recipe's precision is float16 and no layer uses it, or float32 and a layer uses float16."""
    asked, other = recipe.precision, "float32" if recipe.precision == "float16" else "float16"
    if (asked == "float16" and not found.get(asked) and not found.get("fused")) or (
        asked == "float32" and found.get(other)
    ):
        layers = ", ".join(f"{n} layers in {kind}" for kind, n in found.items()) or "no layers"
        raise EngineError(f"{name}: the recipe asks for {asked}, but the engine has {layers}: export the bundle again")


class _Memory:
    """A GPU buffer for each tensor, and the CUDA stream for all work. Buffers grow when needed."""

    def __init__(self, owner: str) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise EngineError(
                f"{owner}: cuda-bindings cannot be loaded ({error}): pip install cuda-bindings"
            ) from error
        self._cuda, self._owner = runtime, owner
        self._buffers: dict[str, tuple[int, int]] = {}
        self._stream = self._ask(runtime.cudaStreamCreate())
        weakref.finalize(self, _free, runtime, self._buffers, self._stream)

    @property
    def stream(self) -> int:
        return int(self._stream)

    def room(self, tensor: str, size: int) -> int:
        """The address of a buffer of at least `size` bytes."""
        address, there = self._buffers.get(tensor, (0, 0))
        if there >= size:
            return address
        if there:
            self._ask(self._cuda.cudaFree(address))
            del self._buffers[tensor]
        made = int(self._ask(self._cuda.cudaMalloc(size)))
        self._buffers[tensor] = (made, size)
        return made

    def upload(self, tensor: str, array: NDArray[Any]) -> None:
        """Start to copy a C-contiguous array to the tensor's buffer."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        address = self._buffers[tensor][0]
        self._ask(self._cuda.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, self._stream))

    def download(self, tensor: str, array: NDArray[Any]) -> None:
        """Start to copy the tensor's buffer to a C-contiguous array. Call `wait` before reading the array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        address = self._buffers[tensor][0]
        self._ask(self._cuda.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, self._stream))

    def wait(self) -> None:
        """Wait until all work on the stream is done."""
        self._ask(self._cuda.cudaStreamSynchronize(self._stream))

    def _ask(self, answer: tuple[Any, ...]) -> Any:
        """The value that a CUDA call returned. EngineError if the call failed."""
        error, *values = answer
        if int(error):
            raise EngineError(f"{self._owner}: CUDA: {getattr(error, 'name', error)}: check the GPU with nvidia-smi")
        return values[0] if values else None


def _free(cuda: Any, buffers: Mapping[str, tuple[int, int]], stream: Any) -> None:
    for address, _ in buffers.values():
        cuda.cudaFree(address)
    cuda.cudaStreamDestroy(stream)
