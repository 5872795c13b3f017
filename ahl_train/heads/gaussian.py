"""A shrunk-covariance Gaussian of normal features, as layers: whitening, and the distance that follows from it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ahl_train.errors import ConfigError
from ahl_train.heads.loss import top_k_mean
from ahl_train.rng import DENSITY_SEED

_LEAST = 10  # normals
_MOST = 20_000  # vectors that a covariance is estimated from, at most
_PRIOR = 5.0  # frames' worth of the mean of all positions that the mean of one is shrunk by


class Gaussian(nn.Module):
    """Ledoit-Wolf Gaussian of a frame's vectors, [N, P, D]: P positions, 1 for a pooled frame. Buffers only.

    Each position has its own mean, so that a part that always lies at the same place is known there; the covariance
    about them is one.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, dim: int, positions: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(positions, dim))
        self.register_buffer("whitening", torch.eye(dim))

    def fit(self, vectors: Tensor) -> None:
        """Fit on float [N, P, D]. ConfigError for too few."""
        n = len(vectors)
        if n < _LEAST:
            raise ConfigError(f"a density of normality needs {_LEAST} train normals at least, there are {n}")
        own = vectors.mean(0)
        self.mean = (n * own + _PRIOR * own.mean(0)) / (n + _PRIOR)
        frame, position = drawn(vectors, _MOST)
        self.whitening = _whitening(vectors[frame, position] - self.mean[position])

    def forward(self, vectors: Tensor) -> Tensor:
        """float [N, P, D], whitened: N(0, I) for normals."""
        return (vectors - self.mean) @ self.whitening

    @staticmethod
    def distance(whitened: Tensor) -> Tensor:
        """Whitened float [N, P, D] to [N, P]: squared Mahalanobis distance per dimension, 1 on average for normals."""
        return whitened.square().mean(-1)

    @staticmethod
    def log_density(distance: Tensor) -> Tensor:
        """float [N, P] distances to [N]: half the log of the mean of the largest tenth; higher is less normal."""
        return 0.5 * top_k_mean(distance.unsqueeze(-2)).clamp_min(1e-12).log()


def drawn(vectors: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Frames and positions, int64 [M] each, of at most so many vectors of [N, P, D]: the same ones of the same shape.

    At random: a stride that divides the map's width would see some of its columns only.
    """
    positions = vectors.shape[1]
    generator = torch.Generator().manual_seed(DENSITY_SEED)
    kept = torch.randperm(len(vectors) * positions, generator=generator)[:most]
    return kept // positions, kept % positions


def shrunk_covariance(residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Of centred float [M, D]: Ledoit-Wolf's covariance of the standardised, float64 [D, D], and their scale [D]."""
    from sklearn.covariance import LedoitWolf  # here: two seconds that a finished run's readers need not wait

    x: NDArray[np.float64] = residuals.double().numpy()
    scale = np.sqrt(np.square(x).mean(0))
    alive = scale[scale > 1e-6 * scale.max()]
    # A dead channel must not explode later.
    scale = np.maximum(scale, 0.01 * np.median(alive)) if len(alive) else np.ones_like(scale)
    # Shrinking towards the identity is right only where all dimensions have one unit.
    covariance = LedoitWolf(assume_centered=True, store_precision=False).fit(x / scale).covariance_
    return torch.from_numpy(covariance), torch.from_numpy(scale)


def _whitening(residuals: Tensor) -> Tensor:
    """Symmetric inverse root [D, D] of the shrunk covariance of centred float [M, D]."""
    covariance, scale = shrunk_covariance(residuals)
    values, axes = torch.linalg.eigh(covariance)
    root = (axes * values.clamp_min(1e-12) ** -0.5) @ axes.T
    whitening: Tensor = root / scale[:, None]
    return whitening.float()
