"""Where training runs: on a GPU where there is one, otherwise on the CPU."""

import torch

from ahl_train.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def device(wanted: str = "auto") -> torch.device:
    """One of ``DEVICES``; auto: the GPU if there is one. ConfigError for any other, and where there is none."""
    if wanted not in DEVICES:
        raise ConfigError(f"device is {wanted!r}: choose {', '.join(DEVICES)}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here, or torch is the CPU build: choose --device cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
