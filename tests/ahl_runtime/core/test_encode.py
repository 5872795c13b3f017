"""What is written is read back pixel by pixel; grey pictures are stored as such."""

import io

import numpy as np
import pytest
from PIL import Image

from ahl_runtime.core.decode import decode
from ahl_runtime.core.encode import png

_COLOUR = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
_GREY = np.repeat(_COLOUR[..., :1], 3, axis=2)
_ALMOST = _GREY.copy()
_ALMOST[-1, -1, 2] ^= 1


@pytest.mark.parametrize(("pixels", "mode"), [(_COLOUR, "RGB"), (_GREY, "L"), (_ALMOST, "RGB")])
@pytest.mark.parametrize("level", [1, 6])
def test_the_same_pixels_come_back(pixels: np.ndarray, mode: str, level: int) -> None:
    file = png(pixels, level)
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.mode) == ("PNG", mode)
    np.testing.assert_array_equal(decode(file), pixels)
