"""A pixel means the same in training and on the device, whatever kind of file it comes from."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahl_runtime.core.decode import decode
from ahl_train.data.images import Sample, load


def picture(mode: str) -> Image.Image:
    """40 x 30 pixels with all kinds of values."""
    rng = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (30, 40)).astype(np.uint16))
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    return Image.fromarray(rng.integers(0, 256, (30, 40, *channels), dtype=np.uint8), mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_training_and_device_see_the_same_pixels(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"frame{suffix}"
    image = picture(mode)
    image.save(path)
    trained, from_file, from_bytes = load(Sample(path, 0, "good")), decode(path), decode(path.read_bytes())
    assert trained.dtype == np.uint8 and trained.shape == (30, 40, 3)
    assert np.array_equal(trained, from_file) and np.array_equal(trained, from_bytes)
    values = np.asarray(image)
    wanted = values // 256 if mode == "I;16" else values[..., :3] if values.ndim == 3 else values
    assert np.array_equal(trained, wanted if wanted.ndim == 3 else wanted[..., None].repeat(3, 2))
