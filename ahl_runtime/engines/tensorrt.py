"""TensorRT 10 and 11. It uses the bundle's plan if that fits this device. If not, it builds a plan here, once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact
from ahl_runtime.core.errors import EngineError
from ahl_runtime.core.files import write_whole
from ahl_runtime.engines import cuda, trt_build
from ahl_runtime.engines.base import CheckedEngine
from ahl_runtime.engines.trt_run import TensorRtEngine

_LOGGER = logging.getLogger(__name__)


def missing(engine: str, bundle: Bundle, artefact: Artefact) -> str | None:
    """Why TensorRT cannot run here, with the way out; None if it can."""
    problem = cuda.missing()
    if problem:
        return problem
    try:
        modules = _modules(artefact)
    except EngineError as error:
        return str(error)
    if not any(find_spec(name) for name in modules):
        return "tensorrt is not installed: pip install 'ahl[tensorrt]'; on a Jetson it comes with JetPack"
    return missing_bindings()


def missing_bindings() -> str | None:
    """Why the GPU's memory cannot be used from Python, with the way out; None if it can."""
    there = find_spec("cuda") and find_spec("cuda.bindings")
    return None if there else "cuda-bindings is not installed: pip install cuda-bindings"


def load(engine: str, bundle: Bundle, artefact: Artefact, threads: int | None) -> CheckedEngine:
    """An engine from the bundle's plan, a plan built here before, or a new plan, which takes minutes. EngineError."""
    recipe = trt_build.recipe(artefact.extras.get("recipe"))
    trt = _module(artefact)
    model, *plan = artefact.files
    device = cuda.device()
    if plan and _fits(artefact.extras.get("plan"), recipe, describe(trt, device)):
        return TensorRtEngine(trt, bundle.read(plan[0]), recipe, engine)
    if not hasattr(trt, "Builder"):
        raise EngineError(f"{engine}: the bundle's plan is for another device, and {trt.__name__} cannot build one")
    kept = cached(bundle.read(model), recipe, trt, device)
    if kept.exists():
        try:
            return TensorRtEngine(trt, kept.read_bytes(), recipe, engine)
        except (EngineError, OSError) as error:
            _LOGGER.warning("%s: %s cannot be used (%s): building it again", engine, kept, error)
    data = _build(engine, trt, bundle.read(model), recipe, device, kept)
    return TensorRtEngine(trt, data, recipe, engine)


def describe(trt: Any, device: cuda.Device) -> dict[str, str]:
    """What a plan depends on: TensorRT's version, the GPU, the system and its processor."""
    return {
        "tensorrt": str(trt.__version__),
        "gpu": device.name,
        "capability": device.capability,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def cached(model: bytes, recipe: trt_build.Recipe, trt: Any, device: cuda.Device) -> Path:
    """The file for a plan that this device built. The name depends on graph, recipe, GPU, driver and TensorRT."""
    key = {
        "graph": hashlib.sha256(model).hexdigest(),
        "recipe": recipe.model_dump(),
        "driver": device.driver,
        **describe(trt, device),
    }
    return _folder() / f"{_digest(key)}.plan"


def _build(engine: str, trt: Any, model: bytes, recipe: trt_build.Recipe, device: cuda.Device, kept: Path) -> bytes:
    _LOGGER.warning("%s: building the engine for %s, once; this takes minutes", engine, device.name)
    started = time.monotonic()
    timings = _folder() / f"{_digest({**asdict(device), **describe(trt, device)})}.timing"
    plan = trt_build.build(trt, model, recipe, timing=timings.read_bytes() if timings.exists() else b"")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, [plan.data])
        write_whole(timings, [plan.timing])
    except OSError as error:
        reason = error.strerror or error
        _LOGGER.warning("%s: %s cannot be written (%s): it will be built at each start", engine, kept, reason)
    else:
        _LOGGER.warning("%s: built in %.0f s, saved as %s", engine, time.monotonic() - started, kept)
    return plan.data


def _fits(made: object, recipe: trt_build.Recipe, here: dict[str, str]) -> bool:
    """Can the bundle's plan run here? It was made for this kind of device, or it is compatible with it."""
    if not isinstance(made, dict) or made.get("platform") != here["platform"]:
        return False
    version = made.get("tensorrt") == here["tensorrt"] or (
        recipe.version_compatible and _parts(made.get("tensorrt")) <= _parts(here["tensorrt"])
    )
    ampere = recipe.hardware_compatible == "ampere" and _number(here["capability"]) >= 80
    same = recipe.hardware_compatible == "same" and made.get("capability") == here["capability"]
    return version and (made.get("gpu") == here["gpu"] or ampere or same)


def _parts(version: object) -> tuple[int, ...]:
    return tuple(int(part) for part in str(version).split(".") if part.isdecimal())


def _number(capability: str) -> int:
    return int(capability.removeprefix("SM"))


def _modules(artefact: Artefact) -> tuple[str, ...]:
    """The modules that can run the artefact. The lean runtime runs only version-compatible plans."""
    recipe = trt_build.recipe(artefact.extras.get("recipe"))
    return ("tensorrt", "tensorrt_lean") if recipe.version_compatible and len(artefact.files) > 1 else ("tensorrt",)


def _module(artefact: Artefact) -> Any:
    for name in _modules(artefact):
        if find_spec(name):
            try:
                return import_module(name)
            except ImportError as error:
                raise EngineError(f"{name} cannot be loaded ({error}): install it again") from error
    raise EngineError("tensorrt is not installed: pip install 'ahl[tensorrt]'; on a Jetson it comes with JetPack")


def _folder() -> Path:
    """``$AHL_CACHE``, else ``~/.cache/ahl``."""
    return Path(os.environ.get("AHL_CACHE") or "~/.cache/ahl").expanduser() / "engines"


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
