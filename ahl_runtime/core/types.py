"""The vocabulary of the device: frames in, scores, decisions out, and what an engine is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.errors import ImageError

Verdict = Literal["pass", "unsure", "reject"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image and where it came from. `image`: uint8 [H, W, 3], RGB, H and W at least 1, else ImageError."""

    image: NDArray[np.uint8]
    id: str = ""
    source: str = ""
    captured: datetime | None = None

    def __post_init__(self) -> None:
        shape, dtype = list(self.image.shape), self.image.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ImageError(f"frame {self.id or 'without id'}: expected uint8 [H, W, 3], got {dtype} {shape}")


@dataclass(frozen=True, eq=False)
class Outputs:
    """What an engine gives for N frames, float32: `score` [N], `anomaly_map` [N, h, w], `head_scores` [N, heads]."""

    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]
    head_scores: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Of all frames of all parts, one at least."""
        names = ("score", "anomaly_map", "head_scores")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def of(self, i: int) -> Score:
        """Frame i's, in memory of its own, so that it does not hold the batch's."""
        return Score(float(self.score[i]), self.anomaly_map[i].copy(), self.head_scores[i].copy())


@dataclass(frozen=True, eq=False)
class Score:
    """What the graph says of one frame: higher is more anomalous. `anomaly_map` [h, w], `head_scores` [heads]."""

    value: float
    anomaly_map: NDArray[np.float32]
    head_scores: NDArray[np.float32]


def stacked(frames: Sequence[Frame]) -> NDArray[np.uint8]:
    """The pixels of frames of one size, uint8 [N, H, W, 3]; one frame's are not copied."""
    return frames[0].image[np.newaxis] if len(frames) == 1 else np.stack([f.image for f in frames])


@dataclass(frozen=True, eq=False)
class Decision:
    """What becomes of one frame, and why.

    `p_value`: (1 + calibration normals that score at least as high) / (n + 1), in (0, 1]. `threshold`: scores
    above it are rejected; +inf where the calibration has too few normals to reject anything. `promise`: what
    the threshold promises, one sentence. `anomaly_map`: float32 [h, w]. `bundle`: its digest, SHA-256 in hex.
    `calibration`: "bundle", or the name of the device's own (`ahl_runtime.bundle.device_calibration`).
    """

    verdict: Verdict
    score: float
    p_value: float
    threshold: float
    promise: str
    anomaly_map: NDArray[np.float32]
    head_scores: NDArray[np.float32]
    frame: str
    source: str
    captured: datetime | None
    bundle: str
    calibration: str = "bundle"


class Engine(Protocol):
    """Something that runs the graph. `name`: as `ahl-runtime check` prints it."""

    @property
    def name(self) -> str: ...

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """`images`: uint8 [N, H, W, 3], RGB. EngineError."""
        ...
