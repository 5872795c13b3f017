"""The models that the bench compares with: exports of anomalib, the model of the paper in torch, the bare backbone.

Their weights are not trained, because weights change the outputs and not the time.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import onnx
import timm
import torch
from torch import Tensor, nn

from ahl_export.errors import ExportError
from ahl_train.features import FINE
from ahl_train.features.backbone import Backbone, BackboneSpec, load_network
from ahl_train.features.preprocess import Preprocess
from ahl_train.heads.dra.head import DRA

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule

_Result = TypeVar("_Result")
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Paper(nn.Module):
    """The model of the paper: ResNet-18 at 448 and 224 px, the four heads of DRA on both scales, added up.

    The features of its references are kept; the released code computes them again for each batch. It gives no map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = Preprocess(FINE, *_IMAGENET)
        net: Any = timm.create_model("resnet18", pretrained=False)
        self.net, self.heads = net, DRA(net.num_features)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Scores, float32 [N], of images, uint8 [N, H, W, 3]."""
        fine, coarse = (self.net.forward_features(x) for x in self.preprocess(image))
        return self.heads.total(self.heads({"fine": fine, "coarse": coarse}))


class _Bare(nn.Module):
    """The backbone alone, at both scales."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.backbone = Backbone(load_network(spec), stages=(-2, -1))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        """The last two stages of each scale. `fine`: float32 [1, 3, S, S]. `coarse`: float32 [1, 3, S / 2, S / 2]."""
        return *self.backbone(fine), *self.backbone(coarse)


def write_backbone(path: Path, spec: BackboneSpec) -> Path:
    """Write the bare backbone at both scales as ONNX. WeightsError, ExportError."""
    examples = tuple(torch.zeros(1, 3, side, side) for side in (FINE, FINE // 2))
    program = _quietly(
        lambda: torch.onnx.export(_Bare(spec), examples, input_names=["fine", "coarse"], dynamo=True, verbose=False)
    )
    if program is None:
        raise ExportError("torch.onnx gave no graph: check the versions against constraints.txt")
    onnx.save(program.model_proto, path)
    return path


def _padim(side: int) -> "AnomalibModule":
    from anomalib.models import Padim

    model = Padim(pre_trained=False, pre_processor=Padim.configure_pre_processor((side, side)))
    patches, channels = (side // 4) ** 2, len(model.model.idx)
    gaussian = model.model.gaussian
    gaussian.mean = torch.zeros(channels, patches)
    gaussian.inv_covariance = torch.eye(channels).repeat(patches, 1, 1)
    return model


def _efficient_ad(side: int) -> "AnomalibModule":
    from anomalib.models import EfficientAd

    model = EfficientAd(pre_processor=EfficientAd.configure_pre_processor((side, side)))
    with torch.no_grad():
        model.model.mean_std["std"].fill_(1)
        for name, value in model.model.quantiles.items():
            value.fill_(float(name.startswith("qb")))
    return model


ANOMALIB: "dict[str, Callable[[int], AnomalibModule]]" = {
    "PaDiM": _padim,
    "EfficientAD-S": _efficient_ad,
}


def write_anomalib(folder: Path, name: str, side: int) -> Path:
    """Export one of ANOMALIB for frames of `side` px to OpenVINO, with anomalib's exporter. Returns the .xml file.

    The .bin file is in the same folder. An existing export is used again.
    """
    target = folder / f"{name}-{side}.xml"
    if target.exists():
        return target
    model = ANOMALIB[name](side).eval()
    for what in ("image", "pixel"):  # values that a validation would set
        for field, value in ((f"_{what}_threshold", 0.5), (f"{what}_min", 0.0), (f"{what}_max", 1.0)):
            getattr(model.post_processor, field).fill_(value)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        written = _quietly(lambda: model.to_openvino(part, input_size=(side, side)))
        written.with_suffix(".bin").replace(target.with_suffix(".bin"))
        return written.replace(target)


def _quietly(do: Callable[[], _Result]) -> _Result:
    """Run `do` without the warnings and log lines of exporters, which print a page for each model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "anomalib")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return do()
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
