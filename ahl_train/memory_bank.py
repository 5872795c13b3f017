"""A memory of normal patches, as PatchCore has it: how far a patch lies from the nearest that was kept."""

import torch
from torch import Tensor, nn

_PROJECTED = 32  # dimensions in which they are chosen
_MOST = 50_000  # patches that they are chosen among, at random: more take time, and are like those


class MemoryBank(nn.Module):
    """A coreset of normal patches (PatchCore, CVPR 2022, section 3.2). Buffers only."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(size, dim))

    def fit(self, patches: Tensor) -> None:
        """Keep patches, of float [N, P, D], such that no other lies far from all: the same ones of the same."""
        flat = patches.flatten(0, 1)
        if len(flat) > _MOST:
            flat = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:_MOST]]
        self.bank = flat[_coreset(flat, len(self.bank))].clone()

    def forward(self, patches: Tensor) -> Tensor:
        """float [N, P, D] to squared distances [N, P] from the nearest."""
        nearest = (self.bank.square().sum(-1) - 2 * (patches @ self.bank.T)).amin(-1)
        return (patches.square().sum(-1) + nearest).clamp_min(0)


def _coreset(vectors: Tensor, size: int) -> Tensor:
    """Indices [size] into float [M, D]: each next one lies farthest from those before it. Fewer are repeated."""
    if len(vectors) <= size:
        return torch.arange(size) % len(vectors)
    dim, generator = vectors.shape[1], torch.Generator().manual_seed(0)
    projected = vectors @ torch.randn(dim, min(dim, _PROJECTED), generator=generator)
    squares, chosen = projected.square().sum(1), torch.zeros(size, dtype=torch.int64)
    distance = torch.full_like(squares, torch.inf)
    for i in range(1, size):
        last = chosen[i - 1]
        distance = torch.minimum(distance, squares - 2 * (projected @ projected[last]) + squares[last])
        chosen[i] = distance.argmax()
    return chosen
