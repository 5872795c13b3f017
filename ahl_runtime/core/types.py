"""The basic types of the device: frames, scores, decisions, engines."""

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
    """One image and its origin. `image`: uint8 [H, W, 3], RGB, H and W at least 1. ImageError for another array."""

    image: NDArray[np.uint8]
    id: str = ""
    source: str = ""
    captured: datetime | None = None

    def __post_init__(self) -> None:
        shape, dtype = list(self.image.shape), self.image.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ImageError(
                f"frame {self.id or 'without id'}: expected uint8 [H, W, 3], got {dtype} {shape}: "
                "convert it to RGB of 0 to 255"
            )


@dataclass(frozen=True, eq=False)
class Outputs:
    """An engine's outputs for N frames, float32: `score` [N], `anomaly_map` [N, h, w], `head_scores` [N, heads]."""

    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]
    head_scores: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Join the outputs of at least one part, in order."""
        names = ("score", "anomaly_map", "head_scores")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def of(self, i: int) -> Score:
        """The outputs of frame i, copied, so that they do not keep the batch in memory."""
        return Score(float(self.score[i]), self.anomaly_map[i].copy(), self.head_scores[i].copy())


@dataclass(frozen=True, eq=False)
class Score:
    """The outputs for one frame. A higher `value` is more anomalous. `anomaly_map` [h, w], `head_scores` [heads]."""

    value: float
    anomaly_map: NDArray[np.float32]
    head_scores: NDArray[np.float32]


def stacked(frames: Sequence[Frame]) -> NDArray[np.uint8]:
    """The pixels of frames of one size, uint8 [N, H, W, 3]. A single frame is not copied."""
    return frames[0].image[np.newaxis] if len(frames) == 1 else np.stack([f.image for f in frames])


@dataclass(frozen=True, eq=False)
class Decision:
    """The decision on one frame, and the reason for it.

    `p_value`: (1 + number of calibration normals that score at least as high) / (n + 1), in (0, 1]. `threshold`:
    scores above it are rejected. It is +inf if the calibration has too few normals to reject anything. `promise`: what
    the threshold promises, in one sentence. `anomaly_map`: float32 [h, w]. `bundle`: the digest of the bundle, SHA-256
    in hex. `calibration`: "bundle", or the name of a calibration that was made on the device
    (`ahl_runtime.bundle.device_calibration`).
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
    """An object that runs the graph. `name`: as `ahl-runtime check` prints it."""

    @property
    def name(self) -> str: ...

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """`images`: uint8 [N, H, W, 3], RGB. EngineError."""
        ...
