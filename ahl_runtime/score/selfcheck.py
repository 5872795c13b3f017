"""The self-check: compare this device's scores with those at export, and name the engine that scoring uses."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.device_calibration import SideFile, SideFiles
from ahl_runtime.core.errors import BundleError, RuntimeFault, SideFileError
from ahl_runtime.engines import Candidate


@dataclass(frozen=True)
class Check:
    """The result of one engine.

    `passed`: None if the engine cannot run here; then `error` says why. `largest`: the largest score difference,
    relative if the expected score is above 1. `tolerance`: the largest that is allowed. `ms`: the median time of a
    frame.
    """

    engine: str
    precision: str
    passed: bool | None
    frames: int
    tolerance: float
    largest: float | None = None
    ms: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Report:
    """Every engine for which the bundle has an artefact, in order of preference. Those that cannot run here come last.

    `chosen`: the engine that scoring uses, or None.
    """

    checks: list[Check]
    chosen: str | None

    @property
    def passed(self) -> bool:
        """Can at least one engine run here, and does every engine that runs pass?"""
        return self.chosen is not None and all(c.passed is not False for c in self.checks)

    @property
    def why(self) -> str:
        """The reason for the choice of the engine, in one sentence."""
        ran = [c for c in self.checks if c.ms is not None]
        if self.chosen is None:
            return "no engine can run here"
        fastest = min(ran, key=lambda c: c.ms or 0.0, default=None)
        reason = "the first that can run here: GPU engines come first, then CPU engines by their speed at export"
        if fastest and fastest.engine != self.chosen:
            reason += f"; {fastest.engine} is faster here: choose it with --engine {fastest.engine}"
        return f"{self.chosen}: {reason}"


@dataclass(frozen=True)
class OwnCalibration:
    """A calibration made on this device, for a source and an artefact. `error`: why it cannot be used, else None."""

    source: str
    artefact: str
    name: str | None = None
    created: str | None = None
    normals: int | None = None
    threshold: float | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        """The calibration in one line."""
        if self.error:
            return f"fail: {self.error}"
        return f"calibration {self.name} of {self.created}, {self.normals} normals, threshold {self.threshold}"


def calibrations(bundle: Bundle) -> list[OwnCalibration]:
    """The active calibrations that were made on this device for this bundle."""
    return [_own(artefact, source, found) for artefact, source, found in SideFiles(bundle).listed()]


def _own(artefact: str, source: str, found: SideFile | SideFileError) -> OwnCalibration:
    if isinstance(found, SideFileError):
        return OwnCalibration(source, artefact, error=str(found))
    fitted = found.calibration
    threshold = fitted.threshold if math.isfinite(fitted.threshold) else None
    return OwnCalibration(source, artefact, found.name, found.created.isoformat(), fitted.n, threshold)


def check(bundle: Bundle, *, threads: int | None = None) -> Report:
    """Score the bundle's reference frames with every engine that this device has.

    An engine passes if the difference of each score from the manifest is within the tolerance of its artefact. An
    engine that raises an error fails, with the reason. BundleError if an artefact has no reference frames.
    """
    if not all(a.reference for a in bundle.manifest.artefacts):
        raise BundleError(f"{bundle.path}: it has no reference frames to check with: export it again with some")
    found = sorted(engines.candidates(bundle), key=lambda c: c.missing is not None)
    chosen = next((c.engine for c in found if c.missing is None), None)
    return Report([_check(bundle, c, threads) for c in found], chosen)


def _check(bundle: Bundle, candidate: Candidate, threads: int | None) -> Check:
    name, artefact = candidate.engine, candidate.artefact
    count, tolerance = len(artefact.reference), artefact.tolerance
    if candidate.missing:
        return Check(name, artefact.precision, None, count, tolerance, error=candidate.missing)
    differences: list[float] = []
    times: list[float] = []
    try:
        engine = engines.load(bundle, name, threads)
        for _, image, expected in bundle.reference(artefact):
            engine.infer(image[np.newaxis])  # warm up: engines prepare themselves at the first frame of a new size
            start = time.perf_counter()
            outputs = engine.infer(image[np.newaxis])
            times.append(1000 * (time.perf_counter() - start))
            differences.append(abs(float(outputs.score[0]) - expected) / max(1.0, abs(expected)))
    except RuntimeFault as error:
        return Check(name, artefact.precision, False, count, tolerance, error=str(error))
    largest, ms = max(differences), float(np.median(times))
    return Check(name, artefact.precision, largest <= tolerance, count, tolerance, largest, ms)
