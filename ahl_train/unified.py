"""g as one module, from uint8 pixels to score, map and head scores. The exporter turns it into a graph."""

import torch
from torch import Tensor, nn

from ahl_train.features import Extractor
from ahl_train.heads.base import Base


class Unified(nn.Module):
    """The contract of the graph (docs/reference/bundle.md, The graph)."""

    def __init__(self, extractor: Extractor, base: Base) -> None:
        super().__init__()
        self.extractor, self.base = extractor, base
        self.requires_grad_(False).eval()

    @property
    def head_names(self) -> tuple[str, ...]:
        """The columns of the head scores."""
        return self.base.names

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [N, H, W, 3] to score float32 [N], anomaly map float32 [N, h, w], head scores float32 [N, heads]."""
        features = self.extractor(image)
        heads = self.base(features)
        return self.base.total(heads), self.base.maps(features), heads

    @torch.inference_mode()
    def score(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward`` without gradients."""
        found: tuple[Tensor, Tensor, Tensor] = self(image)
        return found
