"""The bundle that decides: its engine, and what decides for each source."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.bundle.device_calibration import SideFiles
from ahl_runtime.bundle.signature import load_public
from ahl_runtime.core import memory
from ahl_runtime.core.errors import EngineError
from ahl_runtime.core.types import Outputs
from ahl_runtime.line.settings import ModelSettings
from ahl_runtime.score.decision import DecisionRule

_ON_GPU = 8  # frames


class LoadedBundle:
    """Loaded from `path` as `part` says. BundleError, EngineError, SideFileError, SigningError.

    `name`: the file's stem. `digest`: the bundle's. `engine`: what runs it. `batch`: frames that are best scored in
    one call. `beside`: calls that are best made side by side: on a CPU one for each core where there is memory for it,
    as within a frame the threads wait for each other. The bundle's bytes are not kept.
    """

    def __init__(self, part: ModelSettings, path: Path, sources: Sequence[str]) -> None:
        bundle = open_bundle(path, trust=load_public(part.trust) if part.trust else None)
        self.path, self.name, self.digest = path, path.stem, bundle.digest
        self.engine = part.engine or engines.available(bundle)[0]
        self.batch = _ON_GPU if engines.on_gpu(self.engine) else 1
        artefact = engines.artefact(bundle, self.engine)
        self.artefact, self.map_range = artefact.engine, artefact.map_range
        self.side_files = SideFiles(bundle)
        self._own = DecisionRule.of(bundle, artefact)
        self._sources = tuple(sources)
        self._rules: dict[str, DecisionRule] = {}
        self.read_rules()
        self._alone, self._together, self.beside = engines.pair(bundle, self.engine, part.threads, part.side_by_side)
        self._places = threading.Semaphore(self.beside)
        self._lock = threading.Lock()
        self._inside = 0
        self._check(bundle)
        memory.trim()

    def infer(self, images: NDArray[np.uint8], *, more: bool = False) -> Outputs:
        """Score frames, uint8 [N, H, W, 3], in one call; callers beyond `beside` wait. EngineError.

        A caller has all cores where there is no other, and none is to come (`more`); else one.
        """
        with self._places:
            with self._lock:
                alone = not (self._inside or more)
                self._inside += 1
            try:
                return (self._alone if alone else self._together).infer(images)
            finally:
                with self._lock:
                    self._inside -= 1

    def rule(self, source: str) -> DecisionRule:
        """What decides for a source of the line."""
        return self._rules[source]

    def read_rules(self) -> None:
        """Take what the device calibrated, anew; SideFileError leaves all as it was."""
        rules = {}
        for source in self._sources:
            side = self.side_files.chosen(self.artefact, source)
            rules[source] = DecisionRule.beside(side, self.digest) if side else self._own
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
