"""A bundle that is loaded into an engine and checked, and an active model. Both are immutable."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """Load the bundle at `path` with `settings`. BundleError, EngineError, SideFileError, SigningError.

    `name`: the file's stem. `digest`: the bundle's digest. `engine`: the engine's name. `batch`: the best number of
    frames in one call. `parallel`: the best number of calls at a time: on a CPU one for each core if memory allows,
    because the threads of one call wait for each other. The bundle's bytes are not kept in memory.
    """

    def __init__(self, settings: ModelSettings, path: Path, sources: Sequence[str]) -> None:
        bundle = open_bundle(path, trust=load_public(settings.trust) if settings.trust else None)
        self.path, self.name, self.digest = path, path.stem, bundle.digest
        self.engine = settings.engine or engines.available(bundle)[0]
        self.batch = _ON_GPU if engines.on_gpu(self.engine) else 1
        artefact = engines.artefact(bundle, self.engine)
        self.artefact, self.map_range = artefact.engine, artefact.map_range
        self.side_files = SideFiles(bundle)
        self._exported = DecisionRule.of(bundle, artefact)
        self._sources = tuple(sources)
        self.rules()
        self._alone, self._together, self.parallel = engines.single_and_parallel(
            bundle, self.engine, settings.threads, settings.side_by_side
        )
        self._places = threading.Semaphore(self.parallel)
        self._lock = threading.Lock()
        self._inside = 0
        self._check(bundle)
        memory.trim()

    def infer(self, images: NDArray[np.uint8], *, more: bool = False) -> Outputs:
        """Score frames, uint8 [N, H, W, 3], in one call; more than `parallel` callers wait. EngineError.

        A call uses all cores if no other call runs and no frames are pending (`more`); else it uses one core.
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

    def rules(self) -> dict[str, DecisionRule]:
        """Read the decision rule of each source: with the device's own calibration, or the exported one.

        SideFileError.
        """
        rules = {}
        for source in self._sources:
            side = self.side_files.chosen(self.artefact, source)
            rules[source] = DecisionRule.of_device(side, self.digest) if side else self._exported
        return rules

    def _check(self, bundle: Bundle) -> None:
        """EngineError unless the reference frames have the scores in the manifest, within the tolerance."""
        artefact = engines.artefact(bundle, self.engine)
        for file, image, expected in bundle.reference(artefact):
            found = float(self.infer(image[np.newaxis]).score[0])
            if abs(found - expected) / max(1.0, abs(expected)) > artefact.tolerance:
                raise EngineError(
                    f"{self.path}: {file} scores {found:.6g} on {self.engine} here, {expected:.6g} at export "
                    f"(tolerance {artefact.tolerance:g}): see ahl-runtime check"
                )


@dataclass(frozen=True, eq=False)
class ActiveModel:
    """A loaded bundle and the decision rule of each source. One value: a frame never sees half of a change."""

    bundle: LoadedBundle
    rules: Mapping[str, DecisionRule]
