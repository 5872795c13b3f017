"""The direction from normality to the seen anomalies: a linear discriminant of few anomalies, as one product."""

import torch
from torch import Tensor, nn

from ahl_train.heads.gaussian import shrunk_covariance

_SCATTER = 0.1  # weight of the anomalies' scatter; the normals' covariance has 1


class Discriminant(nn.Module):
    """Fisher's discriminant of normal vectors, [N, D], and a few anomalies, [L, M, D]. Buffers only."""

    mean: Tensor
    direction: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("direction", torch.zeros(dim))

    def fit(self, normals: Tensor, seen: Tensor) -> Tensor:
        """Fit on both. Returns the score of each anomaly if it had been left out, float [M]; nan for a single anomaly.

        ``seen``, [L, M, D]: L looks at each anomaly, which are left out together.

        The direction w maximises the anomalies' distance from the mean by the normals' shrunk covariance and a share of
        the anomalies' scatter. The scatter limits the effect of a single anomaly that lies far out.
        """
        self.mean = normals.mean(0)
        covariance, scale = shrunk_covariance(normals - self.mean)
        root = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(len(covariance), dtype=covariance.dtype))
        white = torch.linalg.solve_triangular(root, ((seen.flatten(0, 1) - self.mean).double() / scale).T, upper=False)
        # w lies in the span of the few anomalies, so their inner products give its coefficients.
        gram = white.T @ white
        within = white @ _coefficients(gram)
        self.direction = (torch.linalg.solve_triangular(root.T, within[:, None], upper=True)[:, 0] / scale).float()
        looks, count = seen.shape[:2]
        left_out = torch.full((count,), torch.nan)
        for i in range(count if count > 1 else 0):
            kept = torch.arange(looks * count) % count != i
            left_out[i] = gram[i, kept] @ _coefficients(gram[kept][:, kept])
        return left_out

    def forward(self, vectors: Tensor) -> Tensor:
        """float [N, D] to [N], in standard deviations of the normals of ``fit``."""
        return (vectors - self.mean) @ self.direction


def _coefficients(gram: Tensor) -> Tensor:
    """Coefficients [M] of (I + s S)^-1 m at length 1, for whitened anomalies with mean m and scatter S."""
    n = len(gram)
    scatter = (gram - gram.mean(0)) / n
    found = torch.linalg.solve(torch.eye(n) + _SCATTER * scatter, torch.full((n,), 1 / n, dtype=gram.dtype))
    coefficients: Tensor = found / (found @ gram @ found).sqrt()
    return coefficients
