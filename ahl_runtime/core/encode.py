"""Pixels to image files."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png(pixels: NDArray[np.uint8], level: int = 6) -> bytes:
    """Encode uint8 [H, W, 3], RGB, as a PNG file. `decode` gives the same pixels.

    `level`: compression, from 1 (fast) to 9 (small). If the channels are equal, the file is grey, which decodes in half
    the time.
    """
    grey = all(np.array_equal(pixels[..., 0], pixels[..., other]) for other in (1, 2))
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(out, "PNG", compress_level=level)
    return out.getvalue()
