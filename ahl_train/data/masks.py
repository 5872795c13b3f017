"""Mask files to boolean arrays."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ahl_train.errors import DataError


def read_mask(path: Path) -> NDArray[np.bool_]:
    """bool [H, W], true where the file is not zero (sets draw in 1 or in 255); DataError if unreadable."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) > 0
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"mask {path} cannot be read: {error}") from error
