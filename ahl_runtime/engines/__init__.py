"""The engines that this device can run, in order of preference, and why it cannot run the others."""

from __future__ import annotations

from dataclasses import dataclass

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.errors import EngineError, RuntimeFault
from ahl_runtime.engines.base import CheckedEngine, cores, reason
from ahl_runtime.engines.kinds import ENGINES

__all__ = ["Candidate", "artefact", "available", "candidates", "load", "on_gpu", "single_and_parallel"]


@dataclass(frozen=True)
class Candidate:
    """An engine for which a bundle has an artefact. `missing`: why the engine cannot run here, or None if it can."""

    engine: str
    artefact: Artefact
    missing: str | None


def candidates(bundle: Bundle) -> list[Candidate]:
    """Every engine for which the bundle has an artefact, in order of preference. Unknown engines come last.

    A plug-in that cannot be imported is listed at the end, with the reason.
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
    known.sort(key=_preference)  # stable: equal engines stay in the order of ENGINES
    unknown = [
        Candidate(a.engine, a, "ahl-runtime does not know this engine: update ahl-runtime, or install its plug-in")
        for a in manifest.artefacts
        if a.engine not in artefacts
    ]
    return known + unknown + broken


def available(bundle: Bundle) -> list[str]:
    """The engines that can run this bundle here, in order of preference. EngineError if there is none."""
    found = candidates(bundle)
    names = [c.engine for c in found if c.missing is None]
    if not names:
        raise EngineError(
            f"{bundle.path}: no engine can run here: " + "; ".join(f"{c.engine}: {c.missing}" for c in found)
        )
    return names


def artefact(bundle: Bundle, name: str) -> Artefact:
    """The artefact that an engine runs. EngineError, with the choices, if the bundle has no artefact for the engine."""
    found = bundle.manifest.artefact(ENGINES[name].artefact) if name in ENGINES else None
    if found is None:
        choices = ", ".join(c.engine for c in candidates(bundle))
        raise EngineError(f"{bundle.path}: no artefact for engine {name!r}: choose among {choices}")
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
    except Exception as error:  # a plug-in can raise anything
        raise EngineError(f"{name} fails here: {type(error).__name__}: {reason(error)}") from error


def single_and_parallel(
    bundle: Bundle, name: str, threads: int | None = None, side_by_side: bool | None = None
) -> tuple[CheckedEngine, CheckedEngine, int]:
    """An engine for a single frame, an engine for frames in parallel, and the best number of frames in parallel.

    That number is one frame for each core. Both engines are the same, for 1 frame at a time, on a GPU, on one core,
    if `side_by_side` is false, and for an engine that cannot score in parallel. `side_by_side` None: the engine's
    default. That is parallel on ONNX Runtime only, because OpenVINO needs much more memory for it. EngineError.
    """
    found, many, kind = _runnable(bundle, name), cores(threads), ENGINES[name]
    wanted = kind.parallel if side_by_side is None else side_by_side
    module = kind.parallel_module() if wanted and many > 1 and not kind.gpu else None
    if module is None:
        only = load(bundle, name, threads)
        return only, only, 1
    single, parallel = module.single_and_parallel(name, bundle, found, many)
    return single, parallel, many


def _runnable(bundle: Bundle, name: str) -> Artefact:
    found = artefact(bundle, name)
    if why := _missing(bundle, name, found):
        raise EngineError(f"{name} cannot run here: {why}")
    return found


def _missing(bundle: Bundle, name: str, found: Artefact) -> str | None:
    """Why an engine cannot run here, or None if it can. An error in a plug-in's module is a reason too."""
    try:
        return ENGINES[name].load().missing(name, bundle, found)
    except EngineError as error:
        return str(error)
    except Exception as error:  # a plug-in can raise anything
        return f"{type(error).__name__}: {reason(error)}"


def _preference(candidate: Candidate) -> tuple[bool, float]:
    parity = candidate.artefact.parity
    on_cpu = not ENGINES[candidate.engine].gpu
    return on_cpu, parity.ms_p50 if on_cpu and parity else 0.0
