"""SAOE: synthetic anomalies plus outlier exposure, a linear classifier of the pooled features; scales averaged.

Both seen and pseudo anomalies are the outliers (Hendrycks et al. 2019; Ding et al. 2022).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ahl_train.features.maps import Features
from ahl_train.heads.base import NORMAL, Base
from ahl_train.heads.layers import PointScore, map_of_scales, mean_of_scales
from ahl_train.systems import System


class SAOE(Base):
    """A row of the tables: normals against all anomalies. The score is the logit of being anomalous."""

    names = ("anomaly",)
    trains_on = ((True, True, True),)
    negated = (False,)
    inputs = ("fine", "coarse")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = PointScore(channels, 1)

    def losses(self, heads: Tensor, group: Tensor, mu: float, sigma: float) -> Tensor:
        """Cross-entropy: -log p_t, where p_t is the probability of the true class."""
        return -F.logsigmoid(torch.where((group != NORMAL)[:, None], heads, -heads))

    def heads(self, features: Features) -> Tensor:
        return mean_of_scales(lambda maps: self.point(maps.mean((-2, -1), keepdim=True)).flatten(1), features)

    def maps(self, features: Features) -> Tensor:
        return map_of_scales(self.point, features)


SYSTEM = System("SAOE", lambda extractor, shots: SAOE(extractor.channels), ahl=False)
