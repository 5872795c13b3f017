"""The self-check: does this device give the scores that the bundle's maker saw, and which engine would it choose?"""

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
    """One engine's result.

    `passed`: None where it cannot run here, `error` then says why. `largest`: the largest score difference, relative
    where the expected score is above 1, of which `tolerance` is allowed. `ms`: the median time of a frame.
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
    """Every engine that the bundle has an artefact for, the preferred first, those that cannot run here last.

    `chosen`: what scoring would take.
    """

    checks: list[Check]
    chosen: str | None

    @property
    def passed(self) -> bool:
        """At least one engine runs here, and no one that runs is off."""
        return self.chosen is not None and all(c.passed is not False for c in self.checks)

    @property
    def why(self) -> str:
        """Why the chosen engine, in one sentence."""
        ran = [c for c in self.checks if c.ms is not None]
        if self.chosen is None:
            return "no engine can run here"
        fastest = min(ran, key=lambda c: c.ms or 0.0, default=None)
        reason = "the first that can run here: GPU engines come first, CPU engines by their speed where it was exported"
        if fastest and fastest.engine != self.chosen:
            reason += f"; {fastest.engine} is faster here: choose it with --engine {fastest.engine}"
        return f"{self.chosen}: {reason}"


@dataclass(frozen=True)
class OwnCalibration:
    """What the device calibrated for a source and an artefact. `error`: why it cannot be used, else None."""

    source: str
    artefact: str
    name: str | None = None
    created: str | None = None
    normals: int | None = None
    threshold: float | None = None
    error: str | None = None

    @property
    def said(self) -> str:
        """In words."""
        if self.error:
            return f"fail: {self.error}"
        return f"calibration {self.name} of {self.created}, {self.normals} normals, threshold {self.threshold}"


def calibrations(bundle: Bundle) -> list[OwnCalibration]:
    """The device's own calibrations that are in force for this bundle."""
    return [_own(artefact, source, found) for artefact, source, found in SideFiles(bundle).listed()]


def _own(artefact: str, source: str, found: SideFile | SideFileError) -> OwnCalibration:
    if isinstance(found, SideFileError):
        return OwnCalibration(source, artefact, error=str(found))
    fitted = found.calibration
    threshold = fitted.threshold if math.isfinite(fitted.threshold) else None
    return OwnCalibration(source, artefact, found.name, found.created.isoformat(), fitted.n, threshold)


def check(bundle: Bundle, *, threads: int | None = None) -> Report:
    """Score the bundle's reference frames with every engine that this device has.

    An engine passes when each score is within its artefact's tolerance of the one in the manifest; one that raises
    fails, with its reason. BundleError if the bundle carries no reference frames.
    """
    if not all(a.reference for a in bundle.manifest.artefacts):
        raise BundleError(f"{bundle.path}: it carries no reference frames to check with: export it again with some")
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
            engine.infer(image[np.newaxis])  # the first time at a size, engines prepare themselves
            start = time.perf_counter()
            outputs = engine.infer(image[np.newaxis])
            times.append(1000 * (time.perf_counter() - start))
            differences.append(abs(float(outputs.score[0]) - expected) / max(1.0, abs(expected)))
    except RuntimeFault as error:
        return Check(name, artefact.precision, False, count, tolerance, error=str(error))
    largest, ms = max(differences), float(np.median(times))
    return Check(name, artefact.precision, largest <= tolerance, count, tolerance, largest, ms)
