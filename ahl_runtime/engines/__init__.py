"""The engines that this device can run, by name."""

from __future__ import annotations

from ahl_runtime.bundle import Bundle
from ahl_runtime.engines.base import CheckedEngine

__all__ = ["available", "load"]


def available(bundle: Bundle) -> list[str]:
    """The engines that can run this bundle here, the preferred one first."""
    return ["onnxruntime"]


def load(bundle: Bundle, name: str, threads: int | None = None) -> CheckedEngine:
    """One of `available`, ready to run. `threads`: None for every core that this process may use. EngineError."""
    from ahl_runtime.engines.ort import OrtEngine

    return OrtEngine(bundle.read(bundle.manifest.graph.file), threads)
