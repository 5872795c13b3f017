"""Image files to RGB pixels. Training and the device use this same decoder."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ahl_runtime.core.errors import ImageError

__all__ = ["MAX_PIXELS", "SUFFIXES", "ImageError", "decode", "iter_images"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
_SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp", "PPM": ".ppm"}
FORMATS = tuple(_SUFFIX)  # not EPS: to decode it, Pillow starts another program
MAX_PIXELS = 100_000_000

_ORIENTATION = 0x0112  # the EXIF tag
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # some plugins widen 16-bit files to "I"

# decode() raises an error that says what is wrong with a file. Pillow's warnings would repeat it on stderr.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(source: str | os.PathLike[str] | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The pixels of an image file, its bytes, or an open binary file: uint8 [H, W, 3], RGB, C-contiguous.

    Grey is repeated in three channels, alpha is dropped, 16-bit grey is divided by 256, EXIF orientation is applied.
    If a file has several frames, the first is used. ImageError, with the path, for a file that is missing, truncated,
    not one of FORMATS, larger than `max_pixels` pixels, or without a fixed scale of pixel values (float, 32-bit).
    """
    where = _name(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{where}: {width} x {height} pixels, the limit is {max_pixels}: crop or shrink it, "
                    "or raise the limit"
                )
            image.load()
            pixels = _rgb(image, where)
            return np.ascontiguousarray(_upright(pixels, image.getexif().get(_ORIENTATION, 1)))
    except ImageError:
        raise
    except IsADirectoryError as error:
        raise ImageError(f"{where}: a folder: give an image file") from error
    except FileNotFoundError as error:
        raise ImageError(f"{where}: no such file: check the path") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{where}: not an image, or an image that was cut short; expected {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # Pillow's plugins raise errors of any type on damaged bytes
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise ImageError(f"{where}: cannot be decoded ({reason}): replace the file") from error


def suffix_of(body: bytes) -> str:
    """The suffix, with its dot, for the bytes of a file that `decode` can read."""
    with Image.open(io.BytesIO(body), formats=FORMATS) as image:
        return _SUFFIX[str(image.format)]


def iter_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """The image files in `paths`: each file as it is given, and all images in each folder, recursive and sorted.

    In folders, only files with one of SUFFIXES count. Hidden files (a leading dot) do not count. ImageError, before
    the first file is returned, for a path that does not exist and for a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if _is_image(p, path))
            if not inside:
                raise ImageError(f"{path}: no images in this folder; expected {', '.join(sorted(SUFFIXES))}")
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            raise ImageError(f"{path}: no such file or folder: check the path")
    return iter(found)


def _is_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _name(source: str | os.PathLike[str] | bytes | BinaryIO) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "the image"))


def _rgb(image: Image.Image, where: str) -> NDArray[np.uint8]:
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image)
        if grey.size and (int(grey.min()) < 0 or int(grey.max()) > 0xFFFF):
            raise ImageError(f"{where}: 32-bit grey has no fixed scale: save the image as 8 or 16 bit")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
    if image.mode == "F":
        raise ImageError(f"{where}: float pixels have no fixed scale: save the image as 8 or 16 bit")
    return np.asarray(image.convert("RGB"))


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """EXIF orientation 1 to 8 applied to [H, W, 3]; other values mean 1."""
    match orientation:
        case 2:
            return pixels[:, ::-1]
        case 3:
            return pixels[::-1, ::-1]
        case 4:
            return pixels[::-1]
        case 5:
            return pixels.transpose(1, 0, 2)
        case 6:
            return np.rot90(pixels, -1)
        case 7:
            return pixels[::-1, ::-1].transpose(1, 0, 2)
        case 8:
            return np.rot90(pixels)
        case _:
            return pixels
