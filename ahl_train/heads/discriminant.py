"""The direction from normality to the seen anomalies: a linear discriminant of few anomalies, as one product."""

import torch
from torch import Tensor, nn

from ahl_train.heads.gaussian import shrunk_covariance

_SCATTER = 0.1  # how much the anomalies' scatter counts beside the normals' covariance, which is 1


class Discriminant(nn.Module):
    """Fisher's discriminant of normal vectors, [N, D], and a few anomalies, [L, M, D]. Buffers only."""

    mean: Tensor
    direction: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("direction", torch.zeros(dim))

    def fit(self, normals: Tensor, seen: Tensor) -> Tensor:
        """Fit on both; what each anomaly would score, had it been left out, float [M]: unknown (nan) of a single one.

        ``seen``, [L, M, D]: L looks at each anomaly, which are left out together.

        The direction w maximises the anomalies' distance from the mean by the normals' shrunk covariance and a share of
        the anomalies' scatter: one anomaly that lies far out alone must not decide for all.
        """
        self.mean = normals.mean(0)
        covariance, scale = shrunk_covariance(normals - self.mean)
        root = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(len(covariance), dtype=covariance.dtype))
        white = torch.linalg.solve_triangular(root, ((seen.flatten(0, 1) - self.mean).double() / scale).T, upper=False)
        # w lies in the span of the few anomalies: their coefficients follow from their inner products.
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
        """float [N, D] to [N], in standard deviations of the normals that it was fitted on."""
        return (vectors - self.mean) @ self.direction


def _coefficients(gram: Tensor) -> Tensor:
    """(I + s S)^-1 m of whitened anomalies with mean m and scatter S, scaled to length 1, as their coefficients [M]."""
    n = len(gram)
    scatter = (gram - gram.mean(0)) / n
    found = torch.linalg.solve(torch.eye(n) + _SCATTER * scatter, torch.full((n,), 1 / n, dtype=gram.dtype))
    coefficients: Tensor = found / (found @ gram @ found).sqrt()
    return coefficients
