"""Scoring: a frame in, a decision out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ahl_runtime import engines
from ahl_runtime.bundle import Bundle
from ahl_runtime.decision import Rule
from ahl_runtime.types import Decision, Engine, Frame, Outputs, Score


class Scorer:
    """A bundle, loaded into an engine. `engine`: the first that the device has, unless given; it then has its own
    `threads` (None: every core that this process may use). BundleError, EngineError.

    The bundle's bytes are not kept: let go of the bundle to free them.
    """

    def __init__(self, bundle: Bundle, engine: Engine | None = None, *, threads: int | None = None) -> None:
        self.rule = Rule.of(bundle)
        self.map_range = bundle.manifest.map_range
        self.engine = engine or engines.load(bundle, engines.available(bundle)[0], threads)

    def score(self, image: Frame | NDArray[np.uint8]) -> Decision:
        """Decide on one frame, or on bare pixels, uint8 [H, W, 3] RGB. ImageError, EngineError."""
        frame = image if isinstance(image, Frame) else Frame(image)
        outputs = self.engine.infer(frame.image[np.newaxis])
        return self.rule.decide(_only(outputs), frame)


def _only(outputs: Outputs) -> Score:
    """The score of a batch of one."""
    return Score(float(outputs.score[0]), outputs.anomaly_map[0], outputs.head_scores[0])
