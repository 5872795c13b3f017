"""A memory of normal patches, as in PatchCore: how far a patch lies from the nearest stored one."""

import torch
from torch import Tensor, nn

from ahl_train.heads.gaussian import drawn
from ahl_train.rng import DENSITY_SEED

_PROJECTED = 32  # dimensions of the projection that chooses the coreset
_MEASURED = 5_000  # patches whose mean distance is the scale
_MOST = 50_000  # random candidates for the coreset: more take time and add little


class MemoryBank(nn.Module):
    """A coreset of normal patches (PatchCore, CVPR 2022, section 3.2). Buffers only.

    ``axes``: measure distances along so many principal axes of normal patches only. This is faster, and ignores the
    directions in which normal patches vary little. None: along all axes.
    """

    bank: Tensor
    axes: Tensor | None
    scale: Tensor

    def __init__(self, dim: int, size: int, axes: int | None = None) -> None:
        super().__init__()
        kept = dim if axes is None else min(axes, dim)
        self.register_buffer("bank", torch.zeros(size, kept))
        self.register_buffer("axes", None if axes is None else torch.eye(dim, kept))
        self.register_buffer("scale", torch.ones(()))

    def fit(self, patches: Tensor) -> None:
        """Store patches of float [N, P, D] so that no other patch lies far from all of them. Deterministic."""
        among = patches[drawn(patches, _MOST)]
        if self.axes is not None:
            centred = (among - among.mean(0)).double()
            self.axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -self.bank.shape[1] :].float()
            among = among @ self.axes
        self.bank = among[_coreset(among, len(self.bank))].clone()
        some = among[:_MEASURED]
        around = (some - some.mean(0)).square().sum(-1).mean()
        # If all patches are stored, their distances are rounding errors.
        self.scale = torch.maximum(self._squared(some).mean(), 0.01 * around).clamp_min(1e-12)

    def forward(self, patches: Tensor) -> Tensor:
        """float [N, P, D] to squared distances [N, P] from the nearest stored patch, 1 on average for normals."""
        return self._squared(patches if self.axes is None else patches @ self.axes) / self.scale

    def _squared(self, own: Tensor) -> Tensor:
        """Squared distances of float [..., P, d] along the axes, [..., P], before scaling."""
        nearest = (self.bank.square().sum(-1) - 2 * (own @ self.bank.T)).amin(-1)
        return (own.square().sum(-1) + nearest).clamp_min(0)


def _coreset(vectors: Tensor, size: int) -> Tensor:
    """Indices [size] into float [M, D]: each next one lies farthest from those before it. They repeat if M < size."""
    if len(vectors) <= size:
        return torch.arange(size) % len(vectors)
    dim, generator = vectors.shape[1], torch.Generator().manual_seed(DENSITY_SEED)
    projected = vectors @ torch.randn(dim, min(dim, _PROJECTED), generator=generator)
    squares, chosen = projected.square().sum(1), torch.zeros(size, dtype=torch.int64)
    distance = torch.full_like(squares, torch.inf)
    for i in range(1, size):
        last = chosen[i - 1]
        distance = torch.minimum(distance, squares - 2 * (projected @ projected[last]) + squares[last])
        chosen[i] = distance.argmax()
    return chosen
