"""DevNet: a 1x1 convolution to one channel, the mean of the top 10% of its absolute values, scales averaged."""

from torch import Tensor

from ahl_train.features.maps import Features
from ahl_train.heads.base import Base
from ahl_train.heads.layers import PointScore, map_of_scales, mean_of_scales
from ahl_train.heads.loss import top_k_mean
from ahl_train.systems import System


class DevNet(Base):
    """The base of AHL(DevNet)."""

    names = ("deviation",)
    trains_on = ((True, True, True),)
    negated = (False,)
    inputs = ("fine", "coarse")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = PointScore(channels, 1)

    def heads(self, features: Features) -> Tensor:
        return mean_of_scales(lambda maps: top_k_mean(self.point(maps).abs()), features)

    def maps(self, features: Features) -> Tensor:
        return map_of_scales(lambda maps: self.point(maps).abs(), features)


SYSTEM = System("DevNet", lambda extractor, shots: DevNet(extractor.channels), ahl=False)
AHL_SYSTEM = System("AHL(DevNet)", SYSTEM.base, ahl=True)
