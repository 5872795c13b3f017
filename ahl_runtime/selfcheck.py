"""The self-check: does this device give the scores that the bundle's maker saw?"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ahl_runtime import engines
from ahl_runtime.bundle import Bundle
from ahl_runtime.errors import BundleError, RuntimeFault

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """One engine's result: `largest`: the largest absolute score difference; `ms`: the median time of a frame."""

    engine: str
    passed: bool
    frames: int
    largest: float | None
    ms: float | None
    error: str | None = None


def check(bundle: Bundle, *, threads: int | None = None) -> list[Check]:
    """Score the bundle's reference frames with every engine that this device has.

    An engine passes when each score is within TOLERANCE of the one in the manifest; one that raises fails, with
    its reason. BundleError if the bundle carries no reference frames.
    """
    if not bundle.manifest.reference:
        raise BundleError(f"{bundle.path}: it carries no reference frames to check with: export it again with some")
    return [_check(bundle, name, threads) for name in engines.available(bundle)]


def _check(bundle: Bundle, name: str, threads: int | None) -> Check:
    differences: list[float] = []
    times: list[float] = []
    count = len(bundle.manifest.reference)
    try:
        engine = engines.load(bundle, name, threads)
        for _, image, expected in bundle.reference():
            start = time.perf_counter()
            outputs = engine.infer(image[np.newaxis])
            times.append(1000 * (time.perf_counter() - start))
            differences.append(abs(float(outputs.score[0]) - expected))
    except RuntimeFault as error:
        return Check(name, False, count, None, None, str(error))
    largest = max(differences)
    return Check(name, largest <= TOLERANCE, count, largest, float(np.median(times)))
