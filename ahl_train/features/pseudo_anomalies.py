"""Pseudo anomalies from normal images: CutMix, CutPaste and the DRAEM mask (section B.1).

Each takes an image, a generator and a donor (another training normal, or a texture), uint8 [H, W, 3], and
returns the augmented copy, uint8 [H, W, 3], with the mask of its changed region, bool [H, W], never empty.
The donor may have another size; for a grey image it is made grey. The same generator state gives the same
result. DataError for other arrays, or sides under 16 px.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from ahl_train.errors import DataError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Augmentation = Callable[[Pixels, Generator, Pixels], tuple[Pixels, Mask]]

MIN_SIDE = 16
REFERENCE_SIDE = 256  # px; the CutPaste paper gives a scar's size for this side


def cutmix(image: Pixels, rng: Generator, donor: Pixels) -> tuple[Pixels, Mask]:
    """A box of the donor, 2 to 15% of the area, jittered in colour, pasted at another place."""
    _check(image, donor)
    return _paste_box(image, _fit(donor, image), rng)


def cutpaste(image: Pixels, rng: Generator, donor: Pixels | None = None) -> tuple[Pixels, Mask]:
    """A box of the image itself, or (half of the time) a thin rotated scar of it; the donor is not used."""
    _check(image)
    if rng.random() < 0.5:
        return _paste_box(image, image, rng)
    return _paste_scar(image, rng)


def draem(image: Pixels, rng: Generator, donor: Pixels) -> tuple[Pixels, Mask]:
    """A texture, the donor after random changes, blended in where Perlin noise is high, at random opacity."""
    _check(image, donor)
    mask = perlin_mask(image.shape[:2], rng)
    texture = random_texture(_fit(donor, image), rng)
    opacity = rng.uniform(0.2, 1.0)
    inside, augmented = image[mask].astype(np.float32), image.copy()
    augmented[mask] = np.rint(inside + opacity * (texture[mask] - inside))
    return augmented, mask


AUGMENTATIONS: dict[str, Augmentation] = {"cutmix": cutmix, "cutpaste": cutpaste, "draem": draem}
# A part without orientation looks as normal after these turns.
TURNS: dict[str, Callable[[Pixels], Pixels]] = {
    "mirrored": lambda image: image[:, ::-1],
    "upside-down": lambda image: image[::-1],
    "half-turned": lambda image: image[::-1, ::-1],
}


def perlin_noise(shape: tuple[int, int], cells: tuple[int, int], rng: Generator) -> NDArray[np.float32]:
    """Gradient noise, float32 [H, W], about -1 to 1, with `cells` lattice cells down and across.

    Each lattice node n adds fade(1 - |y - y_n|) fade(1 - |x - x_n|) (g . (y - y_n, x - x_n)): a factor of the
    row times a factor of the column, so thin matrix products give the whole field.
    """
    (rows, rows_slope), (columns, columns_slope) = (_lattice(n, c) for n, c in zip(shape, cells, strict=True))
    angle = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1)).astype(np.float32)
    down = np.hstack([rows_slope @ np.sin(angle), rows @ np.cos(angle)])
    across = np.hstack([columns, columns_slope])
    # einsum, not @: for a product this thin, waking BLAS's threads costs more than it saves.
    noise: NDArray[np.float32] = np.einsum("hk,wk->hw", down, across)
    return np.float32(np.sqrt(2)) * noise


def perlin_mask(shape: tuple[int, int], rng: Generator) -> Mask:
    """bool [H, W]: Perlin noise above 0.5 at a random scale on each axis, or its highest 2%."""
    finest = [max(0, int(np.log2(min(32, n // 4)))) for n in shape]
    rows, columns = (2 ** int(rng.integers(0, f + 1)) for f in finest)
    noise = perlin_noise(shape, (rows, columns), rng)
    return noise >= min(0.5, float(np.quantile(noise, 0.98)))


def random_texture(donor: Pixels, rng: Generator) -> Pixels:
    """The donor, rolled and then changed by three random changes out of nine. Replaces a texture set."""
    rolled = np.roll(donor, (int(rng.integers(donor.shape[0])), int(rng.integers(donor.shape[1]))), axis=(0, 1))
    picture = Image.fromarray(rolled)
    for i in rng.choice(len(_CHANGES), size=3, replace=False):
        picture = _CHANGES[i](picture, rng)
    return np.asarray(picture)


_CHANGES: tuple[Callable[[Image.Image, Generator], Image.Image], ...] = (
    lambda p, rng: ImageEnhance.Contrast(p).enhance(rng.uniform(0.5, 2.0)),
    lambda p, rng: ImageEnhance.Brightness(p).enhance(rng.uniform(0.5, 1.5)),
    lambda p, rng: ImageOps.solarize(p, int(rng.integers(32, 129))),
    lambda p, rng: ImageOps.posterize(p, int(rng.integers(2, 5))),
    lambda p, rng: ImageOps.invert(p),
    lambda p, rng: ImageOps.autocontrast(p),
    lambda p, rng: ImageOps.mirror(p),
    lambda p, rng: ImageOps.flip(p),
    lambda p, rng: Image.merge("RGB", [p.getchannel(int(c)) for c in rng.permutation(3)]),
)


def _paste_box(image: Pixels, source: Pixels, rng: Generator) -> tuple[Pixels, Mask]:
    """A box of `source`, of the image's size, pasted elsewhere; CutPaste's area and aspect."""
    height, width = image.shape[:2]
    area = rng.uniform(0.02, 0.15) * height * width
    aspect = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
    h = int(np.clip(round(np.sqrt(area / aspect)), 2, height - 1))
    w = int(np.clip(round(np.sqrt(area * aspect)), 2, width - 1))
    top, left = _corner(height - h, width - w, rng)
    patch = Image.fromarray(source[top : top + h, left : left + w])
    return _paste(image, _jitter(patch, rng), Image.new("L", patch.size, 255), rng)


def _paste_scar(image: Pixels, rng: Generator) -> tuple[Pixels, Mask]:
    """A strip 2 to 16 px wide and 10 to 25 px long on an image of 256 px, rotated by up to 45 degrees."""
    height, width = image.shape[:2]
    scale = min(height, width) / REFERENCE_SIDE
    w = max(2, round(rng.uniform(2, 16) * scale))
    h = max(3, round(rng.uniform(10, 25) * scale))
    top, left = _corner(height - h, width - w, rng)
    patch = _jitter(Image.fromarray(image[top : top + h, left : left + w]), rng)
    angle = rng.uniform(-45, 45)
    shape = Image.new("L", patch.size, 255).rotate(angle, expand=True)
    return _paste(image, patch.rotate(angle, Image.Resampling.BILINEAR, expand=True), shape, rng)


def _paste(image: Pixels, patch: Image.Image, shape: Image.Image, rng: Generator) -> tuple[Pixels, Mask]:
    """The patch where `shape` is not zero, at a random place."""
    height, width = image.shape[:2]
    inside = np.asarray(shape) > 0
    top, left = _corner(height - inside.shape[0], width - inside.shape[1], rng)
    region = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
    augmented, mask = image.copy(), np.zeros((height, width), bool)
    mask[region] = inside
    augmented[region][inside] = np.asarray(patch)[inside]
    return augmented, mask


def _jitter(patch: Image.Image, rng: Generator) -> Image.Image:
    """Brightness, contrast and saturation, each by up to 10%."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        patch = enhance(patch).enhance(rng.uniform(0.9, 1.1))
    return patch


def _lattice(pixels: int, cells: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight of each lattice node on each pixel, float32 [pixels, cells + 1], and weight times distance."""
    place = (np.arange(pixels, dtype=np.float32) + 0.5) * (cells / pixels)
    distance = place[:, None] - np.arange(cells + 1, dtype=np.float32)
    t = np.clip(1 - np.abs(distance), 0, 1)
    fade = t * t * t * (t * (t * 6 - 15) + 10)
    return fade, fade * distance


def _corner(rows: int, columns: int, rng: Generator) -> tuple[int, int]:
    return int(rng.integers(rows + 1)), int(rng.integers(columns + 1))


def _fit(donor: Pixels, image: Pixels) -> Pixels:
    """The donor at the image's size, and grey if the image is grey: colour alone must not reveal the paste."""
    picture = Image.fromarray(donor)
    if donor.shape != image.shape:
        picture = picture.resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR)
    if (image == image[..., :1]).all():
        picture = picture.convert("L").convert("RGB")
    return np.asarray(picture)


def _check(*images: Pixels) -> None:
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE:
            raise DataError(
                f"augmentation needs uint8 [H, W, 3] with sides of {MIN_SIDE} px or more, "
                f"got {image.dtype} {list(image.shape)}"
            )
