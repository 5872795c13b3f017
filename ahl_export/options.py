"""The options of an export."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ahl_export.errors import ExportError

Hardware = Literal["none", "same", "ampere"]
Precision = Literal["float16", "float32"]


@dataclass(frozen=True)
class ExportOptions:
    """The settings of `export`, as the options of ``ahl export``. ExportError if they do not go together.

    `alpha`: the false-reject rate that the threshold keeps, with `confidence`. `tail`: if there are too few normals for
    alpha, fit a tail, which is a model and no guarantee. `openvino`, `int8`, `trt`: artefacts besides the float32 one.
    `trt_compat`, `trt_hardware_compat`: see ``ahl_runtime.engines.trt_build.Recipe``. `trt_rtx`: GPUs to compile for,
    such as ``("sm86", "sm89")``. `trt_precision`: for both. `sign`: a private key's file. `triton`: a model repository
    to add the graph to.
    """

    alpha: float = 0.01
    confidence: float = 0.95
    tail: bool = False
    openvino: bool = False
    int8: bool = False
    trt: bool = False
    trt_compat: bool = False
    trt_hardware_compat: Hardware = "none"
    trt_rtx: tuple[str, ...] = ()
    trt_precision: Precision = "float16"
    sign: Path | None = None
    triton: Path | None = None

    def __post_init__(self) -> None:
        if (self.trt_compat or self.trt_hardware_compat != "none") and not self.trt:
            raise ExportError("trt_compat and trt_hardware_compat (--trt-...) are options of trt (--trt): give it too")
        for asked, module, extra in (
            (self.openvino, "openvino", "openvino"),
            (self.trt_rtx, "tensorrt_rtx", "tensorrt-rtx"),
        ):
            if asked and find_spec(module) is None:
                raise ExportError(f"that needs the extra [{extra}]: pip install 'ahl[export,{extra}]'")
