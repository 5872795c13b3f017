"""A synthetic data set in MVTec AD layout for users without data: textures like Optical's, with pixel masks."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ahl_train.data.samples import GOOD
from ahl_train.errors import ConfigError, DataError
from ahl_train.rng import Stream, generator

Field = NDArray[np.float64]  # [size, size], mean 0, standard deviation 1
MIN_SIZE = 32


def write_dataset(out: Path, *, normals: int = 200, anomalies: int = 50, seed: int = 0, size: int = 256) -> Path:
    """Write grey PNGs of size x size px and return `out`. Every fourth normal is tested; defect classes take turns.

    An image depends only on the seed and its own number, so a larger set begins with the smaller one. The set is
    written to a temporary folder, which is then renamed, so `out` is complete or absent. ConfigError for invalid
    counts or sizes; DataError if `out` exists and is not empty, or cannot be written.
    """
    if normals < 1 or anomalies < 0 or seed < 0 or size < MIN_SIZE:
        raise ConfigError(
            f"synth: got {normals} normals, {anomalies} anomalies, seed {seed}, size {size}: "
            f"give at least 1, 0, 0 and {MIN_SIZE}"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"synth: {out} exists and is not empty: choose another folder or remove it")
    out = out.resolve()
    aside = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        _write_all(aside, normals, anomalies, seed, size)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    except OSError as error:
        raise DataError(f"synth: {out} cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def make_normal(size: int, rng: Generator) -> NDArray[np.uint8]:
    """uint8 [size, size]: one of the textures, at random lightness and contrast."""
    return _to_pixels(_texture(size, rng), rng)


def make_anomaly(kind: str, size: int, rng: Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """uint8 [size, size] with one defect of the class, and its mask, bool [size, size]."""
    defect = DEFECTS[kind]
    field = _texture(size, rng)
    shape = Image.new("L", (size, size))
    defect.draw(ImageDraw.Draw(shape), size, rng)
    edge = np.asarray(shape.filter(ImageFilter.GaussianBlur(defect.edge * size))) / 255
    changed = field * defect.contrast + defect.shift * rng.choice(defect.signs)
    return _to_pixels(field + edge * (changed - field), rng), np.asarray(shape) > 0


@dataclass(frozen=True)
class Defect:
    """How a class is drawn, and how the texture changes inside: contrast x texture + sign x shift."""

    draw: Callable[[ImageDraw.ImageDraw, int, Generator], None]
    contrast: float
    shift: float
    signs: tuple[int, ...] = (-1, 1)
    edge: float = 0.004  # blur of the outline, in image sides


def _draw_scratch(pen: ImageDraw.ImageDraw, size: int, rng: Generator) -> None:
    centre, angle, half = rng.uniform(0.25, 0.75, 2), rng.uniform(0, np.pi), rng.uniform(0.1, 0.25)
    step = half * np.array([np.cos(angle), np.sin(angle)])
    pen.line([*((centre - step) * size), *((centre + step) * size)], 255, max(2, round(0.01 * size)))


def _draw_crack(pen: ImageDraw.ImageDraw, size: int, rng: Generator) -> None:
    turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.5, 12))
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * 0.035
    walk = rng.uniform(0.3, 0.7, 2) + np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2
    pen.line((walk * size).ravel().tolist(), 255, max(2, round(0.012 * size)))


def _draw_spots(pen: ImageDraw.ImageDraw, size: int, rng: Generator) -> None:
    for _ in range(int(rng.integers(1, 5))):
        _ellipse(pen, size, rng, 0.015, 0.035)


def _draw_patch(pen: ImageDraw.ImageDraw, size: int, rng: Generator) -> None:
    _ellipse(pen, size, rng, 0.07, 0.16)


def _ellipse(pen: ImageDraw.ImageDraw, size: int, rng: Generator, least: float, most: float) -> None:
    centre, radius = rng.uniform(0.2, 0.8, 2) * size, np.maximum(1.5, rng.uniform(least, most, 2) * size)
    pen.ellipse([*(centre - radius), *(centre + radius)], 255)


DEFECTS: dict[str, Defect] = {
    "scratch": Defect(_draw_scratch, contrast=0.4, shift=2.6),
    "crack": Defect(_draw_crack, contrast=0.4, shift=2.6, signs=(-1,)),
    "spots": Defect(_draw_spots, contrast=0.4, shift=2.8),
    "stain": Defect(_draw_patch, contrast=1.0, shift=1.3, edge=0.02),
    "worn": Defect(_draw_patch, contrast=0.2, shift=0.0, edge=0.01),
}


def _write_all(root: Path, normals: int, anomalies: int, seed: int, size: int) -> None:
    for i in range(normals):
        part = "test" if i % 4 == 3 else "train"
        _save(make_normal(size, generator(seed, Stream.MADE_NORMAL, i)), root / part / GOOD / f"{i:05}.png")
    for i in range(anomalies):
        kind = tuple(DEFECTS)[i % len(DEFECTS)]
        image, mask = make_anomaly(kind, size, generator(seed, Stream.MADE_ANOMALY, i))
        _save(image, root / "test" / kind / f"{i:05}.png")
        _save(mask.astype(np.uint8) * 255, root / "ground_truth" / kind / f"{i:05}_mask.png")


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _texture(size: int, rng: Generator) -> Field:
    """White noise shaped in frequency: a random texture that is defined by its statistics only."""
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    shape = _SPECTRA[int(rng.integers(len(_SPECTRA)))](fy, fx) + 0.02
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * shape, s=(size, size))
    return np.asarray((field - field.mean()) / field.std())


def _bump(f: Field, centre: float, width: float) -> Field:
    return np.asarray(np.exp(-(((np.abs(f) - centre) / width) ** 2)))


# The transfer functions, of the frequencies down and across in cycles per pixel.
_SPECTRA: tuple[Callable[[Field, Field], Field], ...] = (
    lambda fy, fx: _bump(np.hypot(fy, fx), 0.12, 0.03),  # grain
    lambda fy, fx: _bump(fy, 0.0, 0.02) * _bump(fx, 0.0, 0.25),  # brushed
    lambda fy, fx: _bump(fy, 0.1, 0.008) * _bump(fx, 0, 0.02) + _bump(fx, 0.1, 0.008) * _bump(fy, 0, 0.02),  # cloth
    lambda fy, fx: 0.05 / (np.hypot(fy, fx) + 0.03),  # cloud
)


def _to_pixels(field: Field, rng: Generator) -> NDArray[np.uint8]:
    """Grey around 128, about 24 levels per standard deviation."""
    return np.clip(np.rint(rng.uniform(118, 138) + rng.uniform(20, 28) * field), 0, 255).astype(np.uint8)
