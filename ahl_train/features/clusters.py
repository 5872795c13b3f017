"""Clusters of normals: HADG builds distributions from them, and AHL(Density) standardises evidence within them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ahl_train.rng import DENSITY_SEED

CLUSTERS = 3  # the paper's K
_SOFTNESS = 0.2  # of a membership's edge, in mean squared distances of normals to their centre
_PRIOR = 100.0  # weight, in normals, that shrinks a cluster's moments to those of all: small clusters say little


def k_means(vectors: NDArray[np.floating], clusters: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Labels [N] and centres [K, D] of float [N, D]. K-means sees each dimension scaled to unit deviation."""
    from sklearn.cluster import KMeans  # imported here: takes two seconds, and loading a finished run needs none of it

    mean, std = vectors.mean(0), vectors.std(0) + 1e-6
    found = KMeans(clusters, n_init=5, random_state=seed).fit((vectors - mean) / std)
    return found.labels_.astype(np.int64), found.cluster_centers_ * std + mean


class Clusters(nn.Module):
    """Soft membership of a frame in C clusters of normals; soft, so that the score has no jump. Buffers only."""

    centres: Tensor
    gain: Tensor

    def __init__(self, dim: int, clusters: int = CLUSTERS) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(clusters, dim))
        self.register_buffer("gain", torch.ones(dim))

    def fit(self, vectors: Tensor) -> None:
        """Fit on float [N, D] of normals."""
        x = vectors.numpy().astype(np.float64)
        labels, centres = k_means(x, len(self.centres), seed=DENSITY_SEED)
        std = x.std(0) + 1e-6
        within = np.square((x - centres[labels]) / std).sum(1).mean()
        self.centres = torch.tensor(centres, dtype=torch.float32)
        self.gain = torch.tensor(1 / (std * max(_SOFTNESS * within, 1e-6) ** 0.5), dtype=torch.float32)

    def forward(self, vectors: Tensor) -> Tensor:
        """float [N, D] to memberships [N, C] that add up to 1."""
        distance = ((vectors.unsqueeze(1) - self.centres) * self.gain).square().sum(-1)
        return torch.softmax(-distance, dim=-1)


class Standard(nn.Module):
    """Scales each of K values to standard deviations of the normals in the frame's own clusters. Buffers only."""

    level: Tensor
    spread: Tensor

    def __init__(self, values: int, clusters: int = CLUSTERS) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(clusters, values))
        self.register_buffer("spread", torch.ones(clusters, values))

    def fit(self, values: Tensor, membership: Tensor) -> None:
        """Fit on float [N, K] of normals and their memberships [N, C]."""
        share = membership.T
        weight = share.sum(1, keepdim=True) + _PRIOR
        self.level = (share @ values + _PRIOR * values.mean(0)) / weight
        rest = (values - membership @ self.level).square()
        self.spread = ((share @ rest + _PRIOR * rest.mean(0)) / weight).sqrt().clamp_min(1e-6)

    def forward(self, values: Tensor, membership: Tensor) -> Tensor:
        """float [N, K] and memberships [N, C] to float [N, K]."""
        return (values - membership @ self.level) / (membership @ self.spread)
