"""A shrunk-covariance Gaussian of normal features, as layers: whitening, and the distance in whitened space."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ahl_train.errors import ConfigError
from ahl_train.heads.loss import top_k_mean
from ahl_train.rng import DENSITY_SEED

_LEAST = 10  # normals
_MOST = 20_000  # most vectors that estimate a covariance
_PRIOR = 5.0  # weight, in frames, that shrinks a position's mean to the mean of all positions


class Gaussian(nn.Module):
    """Ledoit-Wolf Gaussian of a frame's vectors, [N, P, D]: P positions, 1 for a pooled frame. Buffers only.

    Each position has its own mean, so the Gaussian knows parts that always lie at the same place. All positions share
    one covariance.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, dim: int, positions: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(positions, dim))
        self.register_buffer("whitening", torch.eye(dim))

    def fit(self, vectors: Tensor) -> None:
        """Fit on float [N, P, D]. ConfigError if N is too small."""
        n = len(vectors)
        if n < _LEAST:
            raise ConfigError(f"a density of normality needs at least {_LEAST} train normals, there are {n}")
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
    """Frames and positions, int64 [M] each, of at most ``most`` vectors of [N, P, D]; equal for equal shapes.

    Drawn at random: a stride that divides the map's width would use only some of its columns.
    """
    positions = vectors.shape[1]
    generator = torch.Generator().manual_seed(DENSITY_SEED)
    kept = torch.randperm(len(vectors) * positions, generator=generator)[:most]
    return kept // positions, kept % positions


def shrunk_covariance(residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Ledoit-Wolf covariance of centred float [M, D] after scaling, float64 [D, D], and the scale [D]."""
    from sklearn.covariance import LedoitWolf  # here: takes two seconds, and finished runs don't need it

    x: NDArray[np.float64] = residuals.double().numpy()
    scale = np.sqrt(np.square(x).mean(0))
    alive = scale[scale > 1e-6 * scale.max()]
    # A dead channel must not get a huge weight later.
    scale = np.maximum(scale, 0.01 * np.median(alive)) if len(alive) else np.ones_like(scale)
    # Shrinking towards the identity is right only if all dimensions have one unit.
    covariance = LedoitWolf(assume_centered=True, store_precision=False).fit(x / scale).covariance_
    return torch.from_numpy(covariance), torch.from_numpy(scale)


def _whitening(residuals: Tensor) -> Tensor:
    """Symmetric inverse root [D, D] of the shrunk covariance of centred float [M, D]."""
    covariance, scale = shrunk_covariance(residuals)
    values, axes = torch.linalg.eigh(covariance)
    root = (axes * values.clamp_min(1e-12) ** -0.5) @ axes.T
    whitening: Tensor = root / scale[:, None]
    return whitening.float()
