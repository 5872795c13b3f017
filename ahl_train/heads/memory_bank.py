"""A memory of normal patches, as PatchCore has it: how far a patch lies from the nearest that was kept."""

import torch
from torch import Tensor, nn

from ahl_train.heads.gaussian import drawn
from ahl_train.rng import DENSITY_SEED

_PROJECTED = 32  # dimensions in which they are chosen
_MEASURED = 5_000  # patches whose mean distance is the scale
_MOST = 50_000  # patches that they are chosen among, at random: more take time, and are like those


class MemoryBank(nn.Module):
    """A coreset of normal patches (PatchCore, CVPR 2022, section 3.2). Buffers only.

    ``axes``: distances along so many principal axes of normal patches alone, which is quicker, and what varies little
    among them counts for nothing; None: along all.
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
        """Keep patches, of float [N, P, D], such that no other lies far from all: the same ones of the same."""
        among = patches[drawn(patches, _MOST)]
        if self.axes is not None:
            centred = (among - among.mean(0)).double()
            self.axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -self.bank.shape[1] :].float()
            among = among @ self.axes
        self.bank = among[_coreset(among, len(self.bank))].clone()
        some = among[:_MEASURED]
        around = (some - some.mean(0)).square().sum(-1).mean()
        # Where all of them are kept their distance is rounding's.
        self.scale = torch.maximum(self._squared(some).mean(), 0.01 * around).clamp_min(1e-12)

    def forward(self, patches: Tensor) -> Tensor:
        """float [N, P, D] to squared distances [N, P] from the nearest, 1 on average for normal patches."""
        return self._squared(patches if self.axes is None else patches @ self.axes) / self.scale

    def _squared(self, own: Tensor) -> Tensor:
        """Of float [..., P, d] along the axes to [..., P], before the scale."""
        nearest = (self.bank.square().sum(-1) - 2 * (own @ self.bank.T)).amin(-1)
        return (own.square().sum(-1) + nearest).clamp_min(0)


def _coreset(vectors: Tensor, size: int) -> Tensor:
    """Indices [size] into float [M, D]: each next one lies farthest from those before it. Fewer are repeated."""
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
