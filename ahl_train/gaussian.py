"""A shrunk-covariance Gaussian of normal features, as layers: whitening, and the distance that follows from it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ahl_train.errors import ConfigError
from ahl_train.loss import top_k_mean

FOLDS = 5
_MOST = 20_000  # vectors that a covariance is estimated from, at most


class Gaussian(nn.Module):
    """Ledoit-Wolf Gaussian of an image's vectors, [N, P, D]: P positions, 1 for a pooled image. Buffers only."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("whitening", torch.eye(dim))

    def fit(self, vectors: Tensor) -> Tensor:
        """Fit on float [N, P, D]; gives their log densities [N], each by a fit without its fold."""
        n = len(vectors)
        if n < 2 * FOLDS:
            raise ConfigError(f"a density of normality needs {2 * FOLDS} train normals at least, there are {n}")
        fold = torch.arange(n) % FOLDS
        held_out = torch.empty(n)
        for f in range(FOLDS):
            self.mean, self.whitening = _estimate(vectors[fold != f])
            held_out[fold == f] = self.log_density(self.distance(self(vectors[fold == f])))
        self.mean, self.whitening = _estimate(vectors)
        return held_out

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


def _estimate(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and symmetric inverse root [D, D] of the shrunk covariance of float [N, P, D]."""
    flat = vectors.flatten(0, 1)
    # At random: a stride that divides the map's width would see some of its columns only.
    kept = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:_MOST]
    from sklearn.covariance import LedoitWolf  # here: two seconds that a finished run's readers need not wait

    x: NDArray[np.float64] = flat[kept].double().numpy()
    mean, scale = x.mean(0), x.std(0)
    alive = scale[scale > 1e-6 * scale.max()]
    # A dead channel must not explode later.
    scale = np.maximum(scale, 0.01 * np.median(alive)) if len(alive) else np.ones_like(scale)
    # Shrinking towards the identity is right only where all dimensions have one unit.
    covariance = LedoitWolf(assume_centered=True, store_precision=False).fit((x - mean) / scale).covariance_
    values, axes = np.linalg.eigh(covariance)
    root = (axes * np.maximum(values, 1e-12) ** -0.5) @ axes.T
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(root / scale[:, None], dtype=torch.float32)
