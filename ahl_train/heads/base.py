"""What a base model phi is: heads that turn features into scores, free of state, so that AHL can adapt T copies."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ahl_train.features.maps import Features
from ahl_train.heads.loss import deviation_loss

TIMES = "times"  # beside them, in a batch of training: how often each sample counts, float [N]

# Groups of training samples, as columns of `Base.trains_on`.
NORMAL, SEEN, PSEUDO = 0, 1, 2


@dataclass(frozen=True)
class Copies:
    """Of images that a base is fitted on, changed; each [..., ...] as the features themselves.

    ``pasted``: of the first normals, with a patch pasted elsewhere (CutPaste). ``normals``, of the first ones, and
    ``seen``, of all seen anomalies: turned, in one way after the other; none where the part has an orientation.
    """

    pasted: Features = field(default_factory=dict)
    normals: tuple[Features, ...] = ()
    seen: tuple[Features, ...] = ()


class Base(nn.Module):
    """A base model: parameters in, scores out.

    A subclass declares its heads and defines ``heads`` and ``maps``. Parameters are what CDL adapts; buffers are
    fitted once, on normal features by ``fit_normals``, and shared by all copies. ``forward`` must be pure: AHL calls it
    through ``torch.func.functional_call`` under ``vmap``.
    """

    names: ClassVar[tuple[str, ...]]
    # Per head: which of (normal, seen, pseudo) samples it learns from, and whether it is fed to the total negated
    # (a head that scores normality).
    trains_on: ClassVar[tuple[tuple[bool, bool, bool], ...]]
    negated: ClassVar[tuple[bool, ...]]
    inputs: ClassVar[tuple[str, ...]]  # the features that it reads
    folds = 0  # of normals that ``fit`` holds out in turn, the i-th in fold i % folds; 0: none
    copied: ClassVar[int] = 0  # of how many normals, at most, it wants to see copies; 0: none
    sign: Tensor  # of each head in the total, float [heads], where the parameters are

    def __init__(self) -> None:
        super().__init__()
        signs = torch.tensor([-1.0 if negated else 1.0 for negated in self.negated])
        self.register_buffer("sign", signs, persistent=False)

    def fit_normals(self, features: Features) -> None:
        """Fit the buffers on normal features, each [N, ...]."""

    def fit(self, normals: Features, seen: Features, copies: Copies) -> Features | None:
        """Fit the buffers on normals and seen anomalies, [N, ...] and [M, ...]; ``copies``: if it wants them.

        Gives what ``prepare`` would make of those N + M, had they not been fitted on; None where that is the same.
        """
        self.fit_normals(normals)
        return None

    def departure(self, normals: Features, held_out: Features, changed: Sequence[Features]) -> float:
        """How far copies of held-out normals, each time changed in one way, lie from them; fits on ``normals``.

        In standard deviations of the held-out normals. Asked of a base that wants copies.
        """
        raise NotImplementedError

    def fit_norms(self, features: Features) -> None:
        """Set the evaluation statistics of batch norms from one balanced batch, after training."""

    def prepare(self, features: Features) -> Features:
        """What no parameter enters: CDL does it once for each sample. Features, each [N, ...], to what ``heads`` takes.

        A base that gives other than the features themselves gives what is small.
        """
        return features

    @abstractmethod
    def heads(self, features: Features) -> Tensor:
        """What ``prepare`` gives, each [N, ...], to float [N, heads].

        CDL gives each sample of a batch once: what looks at the whole batch, as batch norm, heeds ``features[TIMES]``.
        """

    @abstractmethod
    def maps(self, features: Features) -> Tensor:
        """Features to the anomaly map, float [N, h, w], higher is more anomalous."""

    def losses(self, heads: Tensor, group: Tensor, mu: float, sigma: float) -> Tensor:
        """The loss of each sample by each head, float [T, B, heads] of T models; ``group`` int [B], alike for all T.

        The deviation loss, unless the base brings its own. Which losses count is ``trains_on``'s to say.
        """
        anomalous = (group != NORMAL)[:, None] ^ (self.sign < 0)
        return deviation_loss(heads, anomalous, mu, sigma)

    def total(self, heads: Tensor) -> Tensor:
        """float [..., heads] to the score, float [...]: heads added up, normality negated."""
        return (heads * self.sign).sum(-1)

    def forward(self, features: Features, prepared: bool = False) -> Tensor:
        """Features, or what ``prepare`` made of them, each [N, ...], to float [N, heads]."""
        return self.heads(features if prepared else self.prepare(features))
