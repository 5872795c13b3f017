"""The deviation loss (supplement, section B.2) and the top-k pooling of a score map."""

import torch
from torch import Tensor

from ahl_train.rng import Stream, integer

MARGIN = 5.0  # m, in standard deviations of the prior
_PRIOR_DRAWS = 5000


def prior(seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation (mu_r, sigma_r) of 5,000 draws of N(0, 1)."""
    generator = torch.Generator().manual_seed(integer(seed, Stream.PRIOR))
    draws = torch.randn(_PRIOR_DRAWS, generator=generator, dtype=torch.float64)
    return draws.mean().item(), draws.std().item()


def deviation_loss(score: Tensor, anomalous: Tensor, mu: float, sigma: float, margin: float = MARGIN) -> Tensor:
    """Per sample: |dev| for a normal, max(0, margin - dev) for an anomaly, dev = (score - mu) / sigma.

    ``score`` float [...], ``anomalous`` bool, broadcast against it.
    """
    dev = (score - mu) / sigma
    return torch.where(anomalous, (margin - dev).clamp_min(0), dev.abs())


def top_k_mean(scores: Tensor, fraction: float = 0.1) -> Tensor:
    """float [..., h, w] to float [...]: the mean of the top ``fraction`` of the positions, at least one."""
    flat = scores.flatten(-2)
    return flat.topk(max(1, int(flat.shape[-1] * fraction)), dim=-1).values.mean(-1)
