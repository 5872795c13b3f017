"""The engines that this device can run, by name, the preferred one first, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.errors import EngineError
from ahl_runtime.engines.base import CheckedEngine, cores

__all__ = ["Candidate", "artefact", "available", "candidates", "load", "on_gpu", "pair"]


class _Module(Protocol):
    """What an engine's module gives: functions of the engine's name first. It imports its library inside them only."""

    # Why this device cannot run it, and the way out; None if it can.
    missing: Callable[[str, Bundle, Artefact], str | None]
    # With its number of threads: None for every core that this process may use. EngineError.
    load: Callable[[str, Bundle, Artefact, int | None], CheckedEngine]


class _CpuModule(_Module, Protocol):
    # With its number of threads, more than one: for a frame alone, and for so many side by side. EngineError.
    pair: Callable[[str, Bundle, Artefact, int], tuple[CheckedEngine, CheckedEngine]]


@dataclass(frozen=True)
class _Kind:
    """An engine: the artefact that it runs, and its module. `gpu`: faster than any engine on the CPU.

    `beside`: frames side by side take so little memory that they are scored so unless one says otherwise.
    """

    artefact: str
    module: str
    gpu: bool = False
    beside: bool = False


# By preference. Engines on the CPU are ordered by what was measured where the bundle was exported.
_KINDS = {
    "tensorrt": _Kind("tensorrt", "tensorrt", gpu=True),
    "tensorrt-rtx": _Kind("tensorrt-rtx", "tensorrt_rtx", gpu=True),
    "onnxruntime-cuda": _Kind("onnxruntime", "ort", gpu=True),
    "openvino": _Kind("openvino", "openvino"),
    "onnxruntime-int8": _Kind("onnxruntime-int8", "ort", beside=True),
    "onnxruntime": _Kind("onnxruntime", "ort", beside=True),
}


@dataclass(frozen=True)
class Candidate:
    """An engine that a bundle carries an artefact for. `missing`: why it cannot run here, None if it can."""

    engine: str
    artefact: Artefact
    missing: str | None


def candidates(bundle: Bundle) -> list[Candidate]:
    """Every engine that the bundle has an artefact for, the preferred first; those of a newer version at the end."""
    manifest = bundle.manifest
    known = [
        Candidate(name, found, _missing(bundle, name, found))
        for name, kind in _KINDS.items()
        if (found := manifest.artefact(kind.artefact))
    ]
    known.sort(key=_preference)  # stable: otherwise as they are listed
    unknown = [a for a in manifest.artefacts if a.engine not in {kind.artefact for kind in _KINDS.values()}]
    return known + [Candidate(a.engine, a, "this version of ahl-runtime does not know it: update it") for a in unknown]


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
    found = bundle.manifest.artefact(_KINDS[name].artefact) if name in _KINDS else None
    if found is None:
        choices = ", ".join(c.engine for c in candidates(bundle))
        raise EngineError(f"{bundle.path}: nothing in it for engine {name!r}: choose among {choices}")
    return found


def on_gpu(name: str) -> bool:
    """Does this engine run on a GPU?"""
    return name in _KINDS and _KINDS[name].gpu


def load(bundle: Bundle, name: str, threads: int | None = None) -> CheckedEngine:
    """An engine by name, ready to run. `threads`: None for every core that this process may use. EngineError."""
    found = _runnable(bundle, name)
    return _module(_KINDS[name]).load(name, bundle, found, threads)


def pair(
    bundle: Bundle, name: str, threads: int | None = None, side_by_side: bool | None = None
) -> tuple[CheckedEngine, CheckedEngine, int]:
    """An engine for a frame alone, one for frames side by side, and how many these are best: one for each core.

    On a GPU, on one core, and where `side_by_side` is false, both are the same, for one at a time. None: side by side
    on ONNX Runtime alone, as OpenVINO takes much more memory for it. EngineError.
    """
    found, many, kind = _runnable(bundle, name), cores(threads), _KINDS[name]
    if kind.gpu or many == 1 or not (kind.beside if side_by_side is None else side_by_side):
        only = load(bundle, name, threads)
        return only, only, 1
    alone, beside = cast(_CpuModule, _module(kind)).pair(name, bundle, found, many)
    return alone, beside, many


def _runnable(bundle: Bundle, name: str) -> Artefact:
    found = artefact(bundle, name)
    if why := _missing(bundle, name, found):
        raise EngineError(f"{name} cannot run here: {why}")
    return found


def _missing(bundle: Bundle, name: str, found: Artefact) -> str | None:
    return _module(_KINDS[name]).missing(name, bundle, found)


def _preference(candidate: Candidate) -> tuple[bool, float]:
    parity = candidate.artefact.parity
    on_cpu = not _KINDS[candidate.engine].gpu
    return on_cpu, parity.ms_p50 if on_cpu and parity else 0.0


def _module(kind: _Kind) -> _Module:
    return cast(_Module, import_module(f"ahl_runtime.engines.{kind.module}"))
