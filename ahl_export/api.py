"""The front door of the exporter: `export` and `inspect`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ahl_export import inspection, pipeline
from ahl_export.backends.tensorrt_rtx import targets
from ahl_export.errors import ExportError
from ahl_export.pipeline import ArtefactChoice
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.core.errors import RuntimeFault, raised_as
from ahl_runtime.core.files import as_path
from ahl_runtime.core.settings import checked
from ahl_train.errors import TrainError
from ahl_train.run import Run
from calibration import CalibrationError

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class ExportOptions:
    """The settings of `export`, as the options of ``ahl export``.

    `alpha`: the false-reject rate that the threshold keeps, with `confidence`. `tail`: if there are too few normals for
    alpha, fit a tail, which is a model and no guarantee. `openvino`, `int8`, `trt`: artefacts besides the float32 one.
    `trt_rtx`: GPUs to compile for, such as ``("sm86", "sm89")``. `sign`: a private key's file. `triton`: a model
    repository to add the graph to.
    """

    alpha: float = 0.01
    confidence: float = 0.95
    tail: bool = False
    openvino: bool = False
    int8: bool = False
    trt: bool = False
    trt_compat: bool = False
    trt_hardware_compat: Literal["none", "same", "ampere"] = "none"
    trt_rtx: tuple[str, ...] = ()
    trt_precision: Literal["float16", "float32"] = "float16"
    sign: Path | None = None
    triton: Path | None = None

    def __post_init__(self) -> None:
        if (self.trt_compat or self.trt_hardware_compat != "none") and not self.trt:
            raise ExportError("trt_compat and trt_hardware_compat are options of trt: give trt too")
        for asked, module, extra in (
            (self.openvino, "openvino", "openvino"),
            (self.trt_rtx, "tensorrt_rtx", "tensorrt-rtx"),
        ):
            if asked and find_spec(module) is None:
                raise ExportError(f"that needs the extra [{extra}]: pip install 'ahl[export,{extra}]'")

    @property
    def artefacts(self) -> ArtefactChoice:
        """The artefacts that the pipeline builds. ExportError for an unknown GPU."""
        return ArtefactChoice(
            openvino=self.openvino,
            int8=self.int8,
            trt=self.trt,
            trt_rtx=targets(",".join(self.trt_rtx)) if self.trt_rtx else (),
            trt_precision=self.trt_precision,
            trt_compatible=self.trt_compat,
            trt_hardware=self.trt_hardware_compat,
        )


def export(
    run: Run | AnyPath, out: AnyPath, *, report: Callable[[str], None] = lambda line: None, **options: Any
) -> Bundle:
    """Write the bundle of a finished run to `out`, proven equal to the model and calibrated, or nothing.

    `options`: fields of `ExportOptions`, such as ``alpha=0.01, int8=True``. `report`: called with each line that the
    command would print. Raises ExportError.
    """
    if not callable(report):
        raise ExportError(f"report is {report!r:.80}: expected a function of a line of text")
    asked = checked(ExportOptions, options, ExportError)
    folder = run.folder if isinstance(run, Run) else as_path(run, "the run", ExportError)
    with raised_as(ExportError, CalibrationError, RuntimeFault, TrainError):
        return pipeline.export(
            folder,
            as_path(out, "out", ExportError),
            alpha=asked.alpha,
            confidence=asked.confidence,
            tail=asked.tail,
            wanted=asked.artefacts,
            sign=asked.sign,
            triton=asked.triton,
            report=report,
        ).bundle


def inspect(bundle: Bundle | AnyPath) -> dict[str, Any]:
    """A bundle's manifest, path and digest, JSON-able. Raises ExportError."""
    with raised_as(ExportError, RuntimeFault):
        return inspection.as_json(bundle if isinstance(bundle, Bundle) else open_bundle(bundle))
