"""The device (GPU or CPU) and the precision that training uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ahl_train.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float16", "float32")


def device(wanted: str = "auto") -> torch.device:
    """One of ``DEVICES``; "auto" means the GPU if there is one. ConfigError for another name, or if there is no GPU."""
    if wanted not in DEVICES:
        raise ConfigError(f"device is {wanted!r}: choose {', '.join(DEVICES)}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here, or torch is the CPU build: choose --device cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def precision(wanted: str, there: torch.device) -> str:
    """The backbone's precision during feature extraction: "float16" or "float32".

    ``wanted``: one of ``PRECISIONS``; "auto" gives float16 on a GPU and float32 on a CPU. ConfigError for other values.
    """
    if wanted not in PRECISIONS:
        raise ConfigError(f"precision is {wanted!r}: choose {', '.join(PRECISIONS)}")
    if wanted != "auto":
        return wanted
    return "float16" if there.type == "cuda" else "float32"


@contextmanager
def ieee() -> Iterator[None]:
    """Compute float32 convolutions on a GPU with all bits. By default torch rounds them (not products) to TF32."""
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
