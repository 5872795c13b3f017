"""Fast statistics of a frame, and their values on normal frames. The drift alarm uses them together with the score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from calibration import checks
from calibration.checks import FloatArray
from calibration.errors import ScoresError

GRID = 256
NAMES = ("brightness", "contrast", "sharpness", "horizontal position", "vertical position")
FEWEST = 30  # frames
_SIDE = 320  # the geometric mean of the decimated sides is at most this


@dataclass(frozen=True, eq=False)
class FrameStatistics:
    """A few numbers that describe one frame.

    `brightness`: mean grey value in [0, 255]. `contrast`: standard deviation of the grey values over their mean.
    `sharpness`: mean squared Laplacian over the squared mean. `profiles`: float64 [2, 256], the mean grey value of each
    column and of each row, on 256 points, as standard scores.
    """

    brightness: float
    contrast: float
    sharpness: float
    profiles: FloatArray


def frame_statistics(image: NDArray[np.uint8]) -> FrameStatistics:
    """The statistics of an image, uint8 [H, W, 3], H and W at least 8. ScoresError for anything else.

    They are computed on the grey image (mean of the channels). A larger image is decimated to about 320 x 320.
    """
    if not isinstance(image, np.ndarray):
        raise ScoresError(f"image is {image!r:.80}: expected an array, uint8 [H, W, 3], H and W at least 8")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 8:
        raise ScoresError(f"image is {image.dtype} {list(image.shape)}: expected uint8 [H, W, 3], H and W at least 8")
    H, W = image.shape[:2]
    step = max(1, min(math.ceil(math.sqrt(H * W) / _SIDE), min(H, W) // 8))
    small = image[::step, ::step]
    grey = small[..., 0].astype(np.int16)  # three times the grey value
    grey += small[..., 1]
    grey += small[..., 2]
    columns, rows = grey.mean(axis=0, dtype=np.float32), grey.mean(axis=1, dtype=np.float32)
    mean = float(rows.mean(dtype=np.float64))
    centred = grey[::2, ::2].astype(np.float32) - np.float32(mean)
    laplacian = 4 * grey[1:-1:2, 1:-1]
    for neighbour in (grey[1:-1:2, :-2], grey[1:-1:2, 2:], grey[:-2:2, 1:-1], grey[2::2, 1:-1]):
        laplacian -= neighbour
    edges = laplacian.astype(np.float32)
    scale = max(mean, 1.0)
    return FrameStatistics(
        brightness=mean / 3.0,
        contrast=math.sqrt(float(np.vdot(centred, centred)) / centred.size) / scale,
        sharpness=float(np.vdot(edges, edges)) / edges.size / scale**2,
        profiles=np.stack([_standard(_resampled(columns)), _standard(_resampled(rows))]),
    )


def _resampled(profile: NDArray[np.float32]) -> FloatArray:
    at = (np.arange(GRID) + 0.5) * (profile.size / GRID) - 0.5
    return np.asarray(np.interp(at, np.arange(profile.size), profile), dtype=np.float64)


def _standard(profile: FloatArray) -> FloatArray:
    centred = profile - profile.mean()
    spread = math.sqrt(float(centred @ centred) / centred.size)
    return centred / spread if spread > 1e-6 else np.zeros_like(centred)


@dataclass(frozen=True, eq=False)
class FrameReference:
    """The statistics of the calibration normals.

    `template`: float64 [2, 256], the mean profiles of the first `shapers` frames. `values`: float64 [n, 5], one column
    per name in NAMES. The first `shapers` rows give the template and the bins of the drift alarm. The other rows are
    its first bag.
    """

    template: FloatArray
    values: FloatArray

    @property
    def shapers(self) -> int:
        """The number of frames that gave the template."""
        return shapers(len(self.values))

    @cached_property
    def _slopes(self) -> FloatArray:
        """The template's slope over its own power, float64 [2, 256]."""
        slopes = np.gradient(self.template, axis=1)
        return np.asarray(slopes / np.maximum((slopes * slopes).sum(axis=1, keepdims=True), 1e-12))

    def measure(self, frame: FrameStatistics) -> FloatArray:
        """The values of a frame, float64 [5], in the order of NAMES.

        A position is the shift of the profile from the template in 256ths of the frame, to first order. It is the
        projection of the difference on the slope of the template (Lucas & Kanade 1981, in one dimension).
        """
        positions = ((self.template - frame.profiles) * self._slopes).sum(axis=1)
        return np.array([frame.brightness, frame.contrast, frame.sharpness, *positions])


def checked(frame: FrameStatistics) -> FrameStatistics:
    """`frame`. ScoresError, unless `frame_statistics` made it."""
    if not isinstance(frame, FrameStatistics):
        raise ScoresError(f"a frame is {frame!r:.80}: expected the result of frame_statistics")
    return frame


def shapers(n: int) -> int:
    """How many of n calibration normals give the template and the bins. The others are counted in the bag."""
    return n // 3


def frame_reference(frames: Sequence[FrameStatistics], *, seed: int = 0) -> FrameReference:
    """The reference of n >= 30 normal frames, split at random (seeded) into shapers and bag. ScoresError."""
    given = [checked(frame) for frame in checks.listed("frames", frames, "a list from frame_statistics")]
    n = len(given)
    if n < FEWEST:
        raise ScoresError(f"{n} frames: the drift alarm needs at least {FEWEST} normal frames")
    dealt = [given[i] for i in np.random.default_rng(seed).permutation(n)]
    template = np.mean([f.profiles for f in dealt[: shapers(n)]], axis=0)
    empty = FrameReference(template, np.zeros((0, len(NAMES))))
    return FrameReference(template, np.stack([empty.measure(f) for f in dealt]))
