"""A frame checks its pixels once, when it is made."""

import numpy as np
import pytest

from ahl_runtime.core.errors import ImageError
from ahl_runtime.core.types import Frame


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_other_pixels_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"frame 7: expected uint8 \[H, W, 3\], got"):
        Frame(image, id="7")
