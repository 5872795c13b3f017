"""A head: the squared distance to the normals' mean; how much a channel counts is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ahl_train.features.maps import Features
from ahl_train.heads.base import Base
from ahl_train.systems import System


class Distance(Base):
    """One score, of the last stage at 224 px."""

    names = ("distance",)
    trains_on = ((True, True, True),)
    negated = (False,)
    inputs = ("coarse",)
    centre: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.register_buffer("centre", torch.zeros(channels))

    def fit_normals(self, features: Features) -> None:
        self.centre = features["coarse"].mean((0, 2, 3))

    def heads(self, features: Features) -> Tensor:
        return self.maps(features).mean((1, 2))[:, None]

    def maps(self, features: Features) -> Tensor:
        distance = (features["coarse"] - self.centre[:, None, None]).square()
        return (distance * softplus(self.weight)[:, None, None]).mean(1)


SYSTEM = System("AHL(Distance)", lambda extractor, shots: Distance(extractor.channels), ahl=True)
