"""Frames as the page shows them: small JPEG files with the heat map over the image."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ahl_runtime.score.overlay import overlay

_WIDTH, _HEIGHT = 960, 720
_QUALITY = 82


def jpeg(image: NDArray[np.uint8], anomaly_map: NDArray[np.float32] | None, map_range: tuple[float, float]) -> bytes:
    """A frame, uint8 [H, W, 3], with its map, float32 [h, w], over it where there is one; at most 960 x 720."""
    picture = Image.fromarray(image)
    picture.thumbnail((_WIDTH, _HEIGHT), Image.Resampling.BOX, reducing_gap=2.0)
    if anomaly_map is not None and anomaly_map.size:
        picture = Image.fromarray(overlay(np.asarray(picture), anomaly_map, map_range))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
