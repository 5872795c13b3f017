"""Scoring: images in, decisions out. Start with `load`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.bundle.device_calibration import DEFAULT, SideFiles
from ahl_runtime.bundle.signature import load_public
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import EngineError, ImageError, OutputError, SigningError
from ahl_runtime.core.files import as_path
from ahl_runtime.core.types import Decision, Frame, stacked
from ahl_runtime.score.decision import DecisionRule

# A file's path, a file's bytes, pixels uint8 [H, W, 3] RGB, or a Frame (pixels and their origin).
Image = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Frame


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored(Decision):
    """A decision with its image, uint8 [H, W, 3]. `map_range`: the map values drawn as no heat and as full heat."""

    image: NDArray[np.uint8]
    map_range: tuple[float, float]

    def overlay(self) -> NDArray[np.uint8]:
        """The image with its heat map drawn over it, uint8 [H, W, 3]."""
        from ahl_runtime.score import overlay  # here, because only drawing needs it

        return overlay.overlay(self.image, self.anomaly_map, self.map_range)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG: the overlay in a border of the verdict's colour, with score and threshold. OutputError."""
        from ahl_runtime.score import overlay

        file = as_path(path, "the picture's file", OutputError)
        if file.suffix.lower() != ".png":
            raise OutputError(f"{file}: the picture is a PNG: give a name that ends in .png")
        overlay.write_picture(file, self.image, self, self.map_range)


class Scorer:
    """A bundle, loaded into an engine. `engine`: its name, None for the preferred engine of this device.

    `threads`: None for every core that this process may use. `source`: use the calibration that this device made for
    this source, if there is one (`bundle.device_calibration`). None: use the bundle's thresholds. BundleError,
    EngineError, SideFileError. The scorer does not keep the bundle: delete your reference to it to free its memory.
    """

    def __init__(
        self, bundle: Bundle, engine: str | None = None, *, threads: int | None = None, source: str | None = None
    ) -> None:
        name = engine or engines.available(bundle)[0]
        artefact = engines.artefact(bundle, name)
        side = None if source is None else SideFiles(bundle).chosen(artefact.engine, source)
        self.artefact = artefact.engine
        self.rule = DecisionRule.of(bundle, artefact, side)
        self.map_range = artefact.map_range
        self.engine = engines.load(bundle, name, threads)

    def score(self, image: Image) -> Scored:
        """Decide on one image. ImageError, EngineError."""
        return self.score_batch([image])[0]

    def score_batch(self, images: Iterable[Image], *, at_once: int = 8) -> list[Scored]:
        """Decide on images, in order. Images of one size in a row are scored together, at most `at_once` in one call.

        ImageError, before the first image is scored. EngineError.
        """
        if not isinstance(at_once, int) or at_once < 1:
            raise EngineError(f"at_once is {at_once!r}: expected 1 or more")
        if not isinstance(images, Iterable) or isinstance(images, str | bytes):
            raise ImageError(f"a batch is {type(images).__name__}: expected a list of images")
        frames = [_frame(image) for image in images]
        return [
            self._scored(f, d)
            for some in _chunks(frames, at_once)
            for f, d in zip(some, self._decide(some), strict=True)
        ]

    def decide(self, frame: Frame) -> Decision:
        """The decision alone, without the frame's pixels. EngineError."""
        return self._decide([frame])[0]

    def _decide(self, frames: Sequence[Frame]) -> list[Decision]:
        outputs = self.engine.infer(stacked(frames))
        return [self.rule.decide(outputs.of(i), frame) for i, frame in enumerate(frames)]

    def _scored(self, frame: Frame, decision: Decision) -> Scored:
        return Scored(**vars(decision), image=frame.image, map_range=self.map_range)


def load(
    bundle: str | os.PathLike[str],
    *,
    engine: str | None = None,
    threads: int | None = None,
    source: str | None = DEFAULT,
    trust: str | os.PathLike[str] | None = None,
) -> Scorer:
    """Open a bundle file, check it, and load it into an engine. Every error is a RuntimeFault.

    `trust`: the file of a public key. A bundle that its owner did not sign is refused. The other arguments are those of
    `Scorer`. As on the command line, calibrations that were made on this device are used, unless `source` is None.
    BundleError, EngineError, SideFileError, SigningError.
    """
    key = load_public(as_path(trust, "trust", SigningError)) if trust is not None else None
    if not isinstance(engine, str | None):
        raise EngineError(f"engine is {engine!r:.80}: expected a name, see ahl-runtime check")
    return Scorer(open_bundle(bundle, trust=key), engine, threads=threads, source=source)


def _frame(image: Image) -> Frame:
    match image:
        case Frame():
            return image
        case np.ndarray():
            return Frame(image.copy())  # a camera may fill its buffer with the next frame
        case str() | os.PathLike():
            path = as_path(image, "an image", ImageError)
            return Frame(decode(path), id=path.name)
        case bytes():
            return Frame(decode(image))
    raise ImageError(f"an image is {type(image).__name__}: expected a path, a file's bytes, or uint8 [H, W, 3] RGB")


def _chunks(frames: Sequence[Frame], most: int) -> Iterator[list[Frame]]:
    for _, alike in groupby(frames, key=lambda frame: frame.image.shape):
        some = list(alike)
        yield from (some[i : i + most] for i in range(0, len(some), most))
