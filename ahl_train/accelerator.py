"""Where training runs, on a GPU where there is one, otherwise on the CPU; and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ahl_train.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float16", "float32")


def device(wanted: str = "auto") -> torch.device:
    """One of ``DEVICES``; auto: the GPU if there is one. ConfigError for any other, and where there is none."""
    if wanted not in DEVICES:
        raise ConfigError(f"device is {wanted!r}: choose {', '.join(DEVICES)}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here, or torch is the CPU build: choose --device cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def precision(wanted: str, there: torch.device) -> str:
    """Of the backbone where features are extracted, one of ``PRECISIONS`` but auto, which is float16 on a GPU alone.

    ConfigError for any other.
    """
    if wanted not in PRECISIONS:
        raise ConfigError(f"precision is {wanted!r}: choose {', '.join(PRECISIONS)}")
    if wanted != "auto":
        return wanted
    return "float16" if there.type == "cuda" else "float32"


@contextmanager
def ieee() -> Iterator[None]:
    """Within it, float32 convolutions of a GPU keep all bits: torch rounds them to TF32 by itself, products never."""
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
