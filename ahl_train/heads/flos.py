"""FLOS: a linear classifier of the pooled features with the focal loss (Lin et al. 2017); scales averaged."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ahl_train.features.maps import Features
from ahl_train.heads.base import NORMAL, Base
from ahl_train.heads.layers import PointScore, map_of_scales, mean_of_scales
from ahl_train.systems import System

GAMMA, ALPHA = 2.0, 0.25


class FLOS(Base):
    """A row of the tables: normals against the seen anomalies. The score is the logit of being anomalous."""

    names = ("anomaly",)
    trains_on = ((True, True, False),)
    negated = (False,)
    inputs = ("fine", "coarse")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = PointScore(channels, 1)

    def losses(self, heads: Tensor, group: Tensor, mu: float, sigma: float) -> Tensor:
        return focal_loss(heads, (group != NORMAL)[:, None])

    def heads(self, features: Features) -> Tensor:
        return mean_of_scales(lambda maps: self.point(maps.mean((-2, -1), keepdim=True)).flatten(1), features)

    def maps(self, features: Features) -> Tensor:
        return map_of_scales(self.point, features)


def focal_loss(logit: Tensor, anomalous: Tensor) -> Tensor:
    """Per sample: -alpha_t (1 - p_t)^gamma log p_t, where p_t is the probability of the true class (Eq. 5).

    ``logit`` float [...], ``anomalous`` bool, broadcast against it; alpha_t is ALPHA for an anomaly, else 1 - ALPHA.
    """
    true_logit = torch.where(anomalous, logit, -logit)
    alpha = torch.where(anomalous, ALPHA, 1 - ALPHA)
    return -alpha * torch.sigmoid(-true_logit) ** GAMMA * F.logsigmoid(true_logit)


SYSTEM = System("FLOS", lambda extractor, shots: FLOS(extractor.channels), ahl=False)
