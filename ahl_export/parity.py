"""The gate: an artefact must score as the model that was trained does, on frames of many sizes and kinds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ahl_export.errors import ExportError
from ahl_runtime.types import Engine
from ahl_train.features import Item
from ahl_train.protocol import Split
from ahl_train.unified import Unified

TOLERANCE = 1e-4  # of a score or a map value, relative to it where it is above 1
_SHAPES = ((448, 448), (768, 1024), (500, 120))  # (H, W), beside the frames' own: resizing is where exports drift

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Parity:
    """How far an artefact is from the model."""

    frames: int
    score_max: float
    score_mean: float
    map_max: float
    tolerance: float

    @property
    def equal(self) -> bool:
        return max(self.score_max, self.map_max) <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "equal": self.equal}


def frames_of(split: Split, seed: int) -> list[Pixels]:
    """What the gate looks at: normals not trained on, pseudo anomalies of each kind, and other sizes and shapes."""
    normals = [Item(s) for s in split.calibration_normal[:4] or split.train_normal[:4]]
    donor = split.train_normal[-1]
    pseudo = [
        Item(i.sample, kind, donor, seed) for i, kind in zip(normals, ("cutmix", "cutpaste", "draem"), strict=False)
    ]
    own = [item.pixels() for item in [*normals, *pseudo]]
    resized = [np.asarray(Image.fromarray(own[-1]).resize((w, h), Image.Resampling.BILINEAR)) for h, w in _SHAPES]
    return own + resized


def compare(model: Unified, engine: Engine, frames: Sequence[Pixels]) -> Parity:
    """Score each frame, uint8 [H, W, 3], by both."""
    scores, maps = [], []
    for frame in frames:
        wanted_score, wanted_map, _ = model.score(torch.from_numpy(np.array(frame))[None])
        got = engine.infer(frame[None])
        scores.append(_difference(wanted_score.numpy(), got.score))
        maps.append(_difference(wanted_map.numpy(), got.anomaly_map))
    return Parity(len(frames), max(scores), float(np.mean(scores)), max(maps), TOLERANCE)


def gate(model: Unified, engine: Engine, frames: Sequence[Pixels]) -> Parity:
    """``compare``; ExportError if they disagree."""
    parity = compare(model, engine, frames)
    if not parity.equal:
        raise ExportError(
            f"{engine.name} disagrees with the model: scores by up to {parity.score_max:.2g}, maps by "
            f"{parity.map_max:.2g}, {parity.tolerance:.0e} allowed; nothing was written"
        )
    return parity


def _difference(wanted: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    return float((np.abs(wanted - got) / np.maximum(1.0, np.abs(wanted))).max())
