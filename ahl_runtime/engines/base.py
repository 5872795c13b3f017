"""The base class of all engines. It checks the pixels before an engine runs, and its scores afterwards."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.errors import EngineError
from ahl_runtime.core.types import Outputs

MOST_THREADS = 1024


class CheckedEngine(ABC):
    """An engine implements `_run`. Callers use `infer`, from any thread."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The engine's name, as `ahl-runtime check` prints it."""

    @abstractmethod
    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the graph. `images`: uint8 [N, H, W, 3], C-contiguous, already checked. EngineError."""

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Score `images`, uint8 [N, H, W, 3], RGB, all of one size.

        EngineError for other pixels, for outputs of other shapes or types than the graph's, and for a score that is
        NaN or infinite, because such a score allows no decision.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise EngineError(f"{self.name}: expected uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}")
        outputs = self._run(np.ascontiguousarray(images))
        self._check(outputs, len(images))
        return outputs

    def _check(self, outputs: Outputs, n: int) -> None:
        for name, dimensions in (("score", 1), ("anomaly_map", 3), ("head_scores", 2)):
            array = getattr(outputs, name)
            if array.dtype != np.float32 or array.ndim != dimensions or len(array) != n or 0 in array.shape:
                raise EngineError(
                    f"{self.name}: {name} is {array.dtype} {list(array.shape)} for {n} frames, "
                    f"expected float32 of {dimensions} dimensions: export the bundle again"
                )
        bad = int(np.count_nonzero(~np.isfinite(outputs.score)))
        if bad:
            raise EngineError(f"{self.name}: {bad} of {n} scores are NaN or infinite: export the bundle again")


def cores(threads: int | None) -> int:
    """`threads`, 1 to 1024, or for None the number of cores that this process may use. EngineError.

    An engine starts all of its threads at once: a number without a limit could take every thread of the machine.
    """
    if threads is not None:
        if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
            raise EngineError(f"threads is {threads!r}: expected 1 to {MOST_THREADS}")
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reason(error: Exception) -> str:
    """The error message of an engine's library, as one line of at most 300 characters, plus "..." if it was cut."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "..."
