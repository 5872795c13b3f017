"""The bundle that decides: its engine, and what decides for each source."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahl_runtime import engines
from ahl_runtime.bundle import Bundle, open_bundle
from ahl_runtime.decision import Rule
from ahl_runtime.engines.base import cores
from ahl_runtime.errors import EngineError
from ahl_runtime.line import memory
from ahl_runtime.line.config import ModelPart
from ahl_runtime.sidefile import SideFiles
from ahl_runtime.signature import load_public
from ahl_runtime.types import Outputs

_ON_GPU = 8  # frames
_SIDE_BY_SIDE = ("onnxruntime", "onnxruntime-int8")


class Model:
    """Loaded from `path` as `part` says. BundleError, EngineError, SideFileError, SigningError.

    `name`: the file's stem. `digest`: the bundle's. `engine`: what runs it. `batch`: frames that are best scored
    together: by ONNX Runtime on a CPU one for each core, side by side, as within a frame its threads wait for each
    other. The bundle's bytes are not kept.
    """

    def __init__(self, part: ModelPart, path: Path, sources: Sequence[str]) -> None:
        bundle = open_bundle(path, trust=load_public(part.trust) if part.trust else None)
        self.path, self.name, self.digest = path, path.stem, bundle.digest
        self.engine = part.engine or engines.available(bundle)[0]
        self._on_gpu = engines.on_gpu(self.engine)
        # OpenVINO's one stream gains nothing by it, and takes the memory all the same.
        self.batch = _ON_GPU if self._on_gpu else cores(part.threads) if self.engine in _SIDE_BY_SIDE else 1
        artefact = engines.artefact(bundle, self.engine)
        self.artefact, self.map_range = artefact.engine, artefact.map_range
        self.side_files = SideFiles(bundle)
        self._own = Rule.of(bundle, artefact)
        self._sources = tuple(sources)
        self._rules: dict[str, Rule] = {}
        self.read_rules()
        self._engine = engines.load(bundle, self.engine, part.threads)
        # Frames side by side have one thread each: those of one session would wait for each other at every layer.
        beside = self.batch > 1 and not self._on_gpu
        self._beside = engines.load(bundle, self.engine, 1) if beside else self._engine
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(self.batch, thread_name_prefix="infer")
        self._check(bundle)
        memory.trim()

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Score frames, uint8 [N, H, W, 3], one caller at a time. EngineError."""
        with self._lock:
            if self._on_gpu or len(images) == 1:
                return self._engine.infer(images)
            return Outputs.joined(list(self._pool.map(self._beside.infer, np.split(images, len(images)))))

    def rule(self, source: str) -> Rule:
        """What decides for a source of the line."""
        return self._rules[source]

    def read_rules(self) -> None:
        """Take what the device calibrated, anew; SideFileError leaves all as it was."""
        rules = {}
        for source in self._sources:
            side = self.side_files.chosen(self.artefact, source)
            rules[source] = Rule.beside(side, self.digest) if side else self._own
        self._rules = rules

    def _check(self, bundle: Bundle) -> None:
        """Do the carried frames score as the manifest says?"""
        artefact = engines.artefact(bundle, self.engine)
        for file, image, expected in bundle.reference(artefact):
            found = float(self.infer(image[np.newaxis]).score[0])
            if abs(found - expected) / max(1.0, abs(expected)) > artefact.tolerance:
                raise EngineError(
                    f"{self.path}: {file} scores {found:.6g} on {self.engine} here, {expected:.6g} where it was "
                    f"exported (tolerance {artefact.tolerance:g}): see ahl-runtime check"
                )
