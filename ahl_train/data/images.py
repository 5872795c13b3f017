"""Decodes images and masks to pixels, and lists images that cannot be read."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.decode import ImageError, decode
from ahl_train.data.masks import read_mask
from ahl_train.data.readers import Dataset, Sample, load_dataset
from ahl_train.errors import DataError

__all__ = ["Dataset", "Sample", "Unreadable", "load", "load_dataset", "load_mask", "usable", "verify"]

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A sample whose image cannot be decoded, and why."""

    sample: Sample
    reason: str

    def __str__(self) -> str:
        return f"{self.sample.path}: {self.reason}"


def load(source: Sample | Path) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB, decoded as on the device and cut to the sample's crop; DataError if unreadable."""
    sample = source if isinstance(source, Sample) else Sample(source, 0, "")
    return _cut(_decode(sample.path), sample)


def load_mask(sample: Sample, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """bool [H, W], true where anomalous: all false for a normal, None for an anomaly without a mask.

    shape: (H, W) of the sample's image. DataError if the mask is unreadable or of another size.
    """
    if sample.mask is None:
        return np.zeros(shape, bool) if sample.label == 0 else None
    mask = _cut(read_mask(sample.mask), sample)
    if mask.shape != shape:
        raise DataError(f"mask {sample.mask} is {mask.shape} (H, W), its image {sample.path} is {shape}")
    return mask


def verify(samples: Iterable[Sample]) -> tuple[dict[Sample, str], list[Unreadable]]:
    """Decode every sample. Returns the readable ones in order, and the unreadable ones with reasons.

    Each readable sample comes with the SHA-256 of its size and pixels, independent of its file's name and format.

    DataError if no normal, or no anomaly, of those given can be read. Consecutive patches of one file are decoded
    once.
    """
    given = list(samples)
    files = [list(group) for _, group in groupby(given, key=lambda s: s.path)]
    with ThreadPoolExecutor() as pool:
        checked = [result for results in pool.map(_check, files) for result in results]
    good = {s: found for s, found in checked if isinstance(found, str)}
    bad = [found for _, found in checked if isinstance(found, Unreadable)]
    for label, group in ((0, "normal"), (1, "anomalous")):
        failed = [u for u in bad if u.sample.label == label]
        if failed and not any(s.label == label for s in good):
            raise DataError(f"none of the {len(failed)} {group} images can be read; the first is {failed[0]}")
    return good, bad


def usable(dataset: Dataset) -> tuple[Dataset, list[str]]:
    """The dataset without images that a run cannot use, and a line for each image left out.

    Left out: unreadable images; copies of other images (if one copy trains and the other is held out, the promise is
    too optimistic); images that are labelled both normal and anomalous. DataError as in ``verify``.
    """
    readable, unreadable = verify(dataset.samples)
    lines = [f"unreadable: {u}" for u in unreadable]
    labels: dict[str, set[int]] = {}
    for sample, digest in readable.items():
        labels.setdefault(digest, set()).add(sample.label)
    first: dict[str, Sample] = {}
    kept = []
    for sample, digest in readable.items():
        before = first.setdefault(digest, sample)
        listed_twice = before.path == sample.path and before.kind != sample.kind  # in two classes: the split handles it
        if len(labels[digest]) > 1:
            lines.append(f"the same image is marked normal and anomalous: {sample.path}")
        elif before is not sample and not listed_twice:
            lines.append(f"the same image as {before.path}: {sample.path}")
        else:
            kept.append(sample)
    return replace(dataset, samples=tuple(kept)), lines


def _check(patches: list[Sample]) -> list[tuple[Sample, str | Unreadable]]:
    """For each patch of one file: its digest, or why it cannot be read."""
    try:
        image = _decode(patches[0].path)
    except DataError as error:
        return [(s, Unreadable(s, str(error))) for s in patches]
    results: list[tuple[Sample, str | Unreadable]] = []
    for sample in patches:
        try:
            results.append((sample, _digest(_cut(image, sample))))
        except DataError as error:
            results.append((sample, Unreadable(sample, str(error))))
    return results


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _decode(path: Path) -> NDArray[np.uint8]:
    try:
        return _decode_array(path) if path.suffix == ".npy" else decode(path)
    except ImageError as error:  # its message names the file
        raise DataError(str(error)) from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}): replace the file") from error


def _decode_array(path: Path) -> NDArray[np.uint8]:
    """Mastcam's files: [H, W, bands] of 8-bit numbers, mostly stored as floats. The first three bands are colour."""
    bands: NDArray[np.float64] | NDArray[np.uint8] = np.load(path, allow_pickle=False)
    if bands.ndim != 3 or bands.shape[2] < 3 or bands.dtype.kind not in "fu":
        raise ValueError(f"expected numbers [H, W, 3 or more bands], got {bands.dtype} {list(bands.shape)}")
    return np.asarray(np.clip(np.rint(np.nan_to_num(bands[..., :3])), 0, 255), np.uint8)


def _cut(pixels: NDArray[Scalar], sample: Sample) -> NDArray[Scalar]:
    if sample.crop is None:
        return pixels
    left, top, right, bottom = sample.crop
    height, width = pixels.shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise DataError(f"{sample.path}: crop {sample.crop} does not lie within its {width} x {height} pixels")
    return pixels[top:bottom, left:right]
