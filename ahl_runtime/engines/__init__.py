"""The engines that this device can run, by name, the preferred one first, and why the others cannot."""

from __future__ import annotations

from dataclasses import dataclass

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.errors import EngineError, RuntimeFault
from ahl_runtime.engines.base import CheckedEngine, cores, reason
from ahl_runtime.engines.kinds import ENGINES

__all__ = ["Candidate", "artefact", "available", "candidates", "load", "on_gpu", "pair"]


@dataclass(frozen=True)
class Candidate:
    """An engine that a bundle carries an artefact for. `missing`: why it cannot run here, None if it can."""

    engine: str
    artefact: Artefact
    missing: str | None


def candidates(bundle: Bundle) -> list[Candidate]:
    """Every engine that the bundle has an artefact for, the preferred first; those not known here at the end.

    A plug-in that cannot be imported is among the last ones, with the reason.
    """
    manifest = bundle.manifest
    known: list[Candidate] = []
    broken: list[Candidate] = []
    artefacts: set[str] = set()
    for name in ENGINES:
        try:
            kind = ENGINES[name]
        except EngineError as error:
            broken.append(Candidate(name, manifest.first, str(error)))
            continue
        artefacts.add(kind.artefact)
        if found := manifest.artefact(kind.artefact):
            known.append(Candidate(name, found, _missing(bundle, name, found)))
    known.sort(key=_preference)  # stable: otherwise as they are listed
    unknown = [
        Candidate(a.engine, a, "ahl-runtime does not know it: update it, or install its plug-in")
        for a in manifest.artefacts
        if a.engine not in artefacts
    ]
    return known + unknown + broken


def available(bundle: Bundle) -> list[str]:
    """The engines that can run this bundle here, the preferred one first; EngineError if there is none."""
    found = candidates(bundle)
    names = [c.engine for c in found if c.missing is None]
    if not names:
        raise EngineError(
            f"{bundle.path}: no engine can run here: " + "; ".join(f"{c.engine}: {c.missing}" for c in found)
        )
    return names


def artefact(bundle: Bundle, name: str) -> Artefact:
    """The artefact that an engine runs. EngineError, naming the choices, for an engine that the bundle is not for."""
    found = bundle.manifest.artefact(ENGINES[name].artefact) if name in ENGINES else None
    if found is None:
        choices = ", ".join(c.engine for c in candidates(bundle))
        raise EngineError(f"{bundle.path}: nothing in it for engine {name!r}: choose among {choices}")
    return found


def on_gpu(name: str) -> bool:
    """Does this engine run on a GPU?"""
    return name in ENGINES and ENGINES[name].gpu


def load(bundle: Bundle, name: str, threads: int | None = None) -> CheckedEngine:
    """An engine by name, ready to run. `threads`: None for every core that this process may use. EngineError."""
    found = _runnable(bundle, name)
    try:
        return ENGINES[name].load().load(name, bundle, found, threads)
    except RuntimeFault:
        raise
    except Exception as error:  # of someone else's module
        raise EngineError(f"{name} fails here: {type(error).__name__}: {reason(error)}") from error


def pair(
    bundle: Bundle, name: str, threads: int | None = None, side_by_side: bool | None = None
) -> tuple[CheckedEngine, CheckedEngine, int]:
    """An engine for a frame alone, one for frames side by side, and how many these are best: one for each core.

    On a GPU, on one core, with an engine that has no other way, and where `side_by_side` is false, both are the same,
    for one at a time. None: side by side on ONNX Runtime alone, as OpenVINO takes much more memory for it. EngineError.
    """
    found, many, kind = _runnable(bundle, name), cores(threads), ENGINES[name]
    wanted = kind.beside if side_by_side is None else side_by_side
    module = kind.pair_module() if wanted and many > 1 and not kind.gpu else None
    if module is None:
        only = load(bundle, name, threads)
        return only, only, 1
    alone, beside = module.pair(name, bundle, found, many)
    return alone, beside, many


def _runnable(bundle: Bundle, name: str) -> Artefact:
    found = artefact(bundle, name)
    if why := _missing(bundle, name, found):
        raise EngineError(f"{name} cannot run here: {why}")
    return found


def _missing(bundle: Bundle, name: str, found: Artefact) -> str | None:
    """Why an engine cannot run here; a plug-in whose module fails says so here, and breaks no other."""
    try:
        return ENGINES[name].load().missing(name, bundle, found)
    except EngineError as error:
        return str(error)
    except Exception as error:  # of someone else's module
        return f"{type(error).__name__}: {reason(error)}"


def _preference(candidate: Candidate) -> tuple[bool, float]:
    parity = candidate.artefact.parity
    on_cpu = not ENGINES[candidate.engine].gpu
    return on_cpu, parity.ms_p50 if on_cpu and parity else 0.0
