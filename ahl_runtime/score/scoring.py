"""Scoring: a frame in, a decision out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.device_calibration import SideFiles
from ahl_runtime.core.types import Decision, Frame
from ahl_runtime.score.decision import DecisionRule


class Scorer:
    """A bundle, loaded into an engine. `engine`: its name; None for the first that the device has.

    `threads`: None for every core that this process may use. `source`: decide by what the device calibrated for this
    source (`bundle.device_calibration`), if it did; None for the bundle's own thresholds. BundleError, EngineError,
    SideFileError. The bundle's bytes are not kept: let go of the bundle to free them.
    """

    def __init__(
        self, bundle: Bundle, engine: str | None = None, *, threads: int | None = None, source: str | None = None
    ) -> None:
        name = engine or engines.available(bundle)[0]
        artefact = engines.artefact(bundle, name)
        self.artefact = artefact.engine
        self.rule = DecisionRule.of(
            bundle, artefact, SideFiles(bundle).chosen(artefact.engine, source) if source else None
        )
        self.map_range = artefact.map_range
        self.engine = engines.load(bundle, name, threads)

    def score(self, image: Frame | NDArray[np.uint8]) -> Decision:
        """Decide on one frame, or on bare pixels, uint8 [H, W, 3] RGB. ImageError, EngineError."""
        frame = image if isinstance(image, Frame) else Frame(image)
        outputs = self.engine.infer(frame.image[np.newaxis])
        return self.rule.decide(outputs.of(0), frame)
