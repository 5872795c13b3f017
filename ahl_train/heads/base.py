"""The base model phi: heads that turn features into scores, without state, so that AHL can adapt T copies."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ahl_train.features.maps import Features
from ahl_train.heads.loss import deviation_loss

TIMES = "times"  # extra key in a training batch: how often each sample counts, float [N]

# Groups of training samples, as columns of `Base.trains_on`.
NORMAL, SEEN, PSEUDO = 0, 1, 2


@dataclass(frozen=True)
class Copies:
    """Changed copies of images that a base is fitted on; each [..., ...] as the features themselves.

    ``pasted``: the first normals, each with a patch pasted elsewhere (CutPaste). ``normals`` and ``seen``: turned
    copies of the first normals and of all seen anomalies, one entry per turn; empty if the part has an orientation.
    """

    pasted: Features = field(default_factory=dict)
    normals: tuple[Features, ...] = ()
    seen: tuple[Features, ...] = ()


class Base(nn.Module):
    """A base model: parameters in, scores out.

    A subclass declares its heads and defines ``heads`` and ``maps``. CDL adapts the parameters. ``fit_normals`` fits
    the buffers once, on normal features; all copies share them. ``forward`` must be pure: AHL calls it through
    ``torch.func.functional_call`` under ``vmap``.
    """

    names: ClassVar[tuple[str, ...]]
    # Per head: which of (normal, seen, pseudo) samples it learns from, and whether the total subtracts it (a head that
    # scores normality).
    trains_on: ClassVar[tuple[tuple[bool, bool, bool], ...]]
    negated: ClassVar[tuple[bool, ...]]
    inputs: ClassVar[tuple[str, ...]]  # names of the features that the base reads
    folds = 0  # number of folds that ``fit`` holds out in turn, normal i in fold i % folds; 0: none
    copied: ClassVar[int] = 0  # most normals of which the base needs copies; 0: none
    sign: Tensor  # of each head in the total, float [heads], on the parameters' device

    def __init__(self) -> None:
        super().__init__()
        signs = torch.tensor([-1.0 if negated else 1.0 for negated in self.negated])
        self.register_buffer("sign", signs, persistent=False)

    def fit_normals(self, features: Features) -> None:
        """Fit the buffers on normal features, each [N, ...]."""

    def fit(self, normals: Features, seen: Features, copies: Copies) -> Features | None:
        """Fit the buffers on normals [N, ...] and seen anomalies [M, ...]; ``copies``: if the base needs them.

        Returns what ``prepare`` would return for those N + M if they had not been fitted on; None if that is the same.
        """
        self.fit_normals(normals)
        return None

    def departure(self, normals: Features, held_out: Features, changed: Sequence[Features]) -> float:
        """Fit on ``normals``, then measure how far changed copies of held-out normals lie from the originals.

        ``changed``: one entry per kind of change. The result is in standard deviations of the held-out normals. Only
        called for a base that needs copies.
        """
        raise NotImplementedError

    def fit_norms(self, features: Features) -> None:
        """Set the evaluation statistics of batch norms from one balanced batch, after training."""

    def prepare(self, features: Features) -> Features:
        """The part without parameters, which CDL runs once per sample: features [N, ...] to the input of ``heads``.

        A base that overrides this must return small tensors.
        """
        return features

    @abstractmethod
    def heads(self, features: Features) -> Tensor:
        """The output of ``prepare``, each [N, ...], to float [N, heads].

        CDL gives each sample of a batch once. Layers over the batch, such as batch norm, must use ``features[TIMES]``.
        """

    @abstractmethod
    def maps(self, features: Features) -> Tensor:
        """Features to the anomaly map, float [N, h, w], higher is more anomalous."""

    def losses(self, heads: Tensor, group: Tensor, mu: float, sigma: float) -> Tensor:
        """The loss of each sample for each head, float [T, B, heads] of T models; ``group`` int [B], for all T.

        The deviation loss, unless the base overrides it. ``trains_on`` decides which losses count.
        """
        anomalous = (group != NORMAL)[:, None] ^ (self.sign < 0)
        return deviation_loss(heads, anomalous, mu, sigma)

    def total(self, heads: Tensor) -> Tensor:
        """float [..., heads] to the score, float [...]: the sum of the heads, with normality heads subtracted."""
        return (heads * self.sign).sum(-1)

    def forward(self, features: Features, prepared: bool = False) -> Tensor:
        """Features, or the output of ``prepare`` if ``prepared``, each [N, ...], to float [N, heads]."""
        return self.heads(features if prepared else self.prepare(features))
