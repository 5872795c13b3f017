"""Eleven thousand damaged images through the decoder: prints how many were refused, and the bytes of memory that the
last ten thousand left behind. Not a test: `test_images.py` runs it in a process of its own.
"""

import io
import random

import numpy as np
from PIL import Image

from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import ImageError
from ahl_runtime.tuning.measure import memory

KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")


def whole(kind: str) -> bytes:
    """64 x 64 pixels of noise."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(out, kind)
    return out.getvalue()


def main() -> None:
    """Damage and decode."""
    images, draw = [whole(kind) for kind in KINDS], random.Random(6)
    refused = before = 0
    for i in range(11_000):
        body = bytearray(images[i % len(images)])
        for _ in range(draw.randint(1, 8)):
            body[draw.randrange(min(len(body), 300))] = draw.randrange(256)
        try:
            decode(bytes(body[: draw.choice([len(body), draw.randrange(len(body))])]), max_pixels=1_000_000)
        except ImageError:
            refused += 1
        if i == 1000:
            before = memory()["rss_mb"]
    print(refused, round(1e6 * (memory()["rss_mb"] - before)))  # noqa: T201


if __name__ == "__main__":
    main()
