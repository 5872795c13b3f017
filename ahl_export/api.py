"""The front door of the exporter: `export` and `inspect`."""

import os
from collections.abc import Callable
from typing import Any

from ahl_export import inspection, pipeline
from ahl_export.errors import ExportError
from ahl_export.options import ExportOptions
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.core.errors import RuntimeFault, raised_as
from ahl_runtime.core.files import as_path
from ahl_runtime.core.settings import checked
from ahl_train.errors import TrainError
from ahl_train.run import Run
from calibration import CalibrationError

AnyPath = str | os.PathLike[str]


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
        return pipeline.export(folder, as_path(out, "out", ExportError), asked, report)


def inspect(bundle: Bundle | AnyPath) -> dict[str, Any]:
    """A bundle's manifest, path and digest, JSON-able. Raises ExportError."""
    with raised_as(ExportError, RuntimeFault):
        return inspection.as_json(bundle if isinstance(bundle, Bundle) else open_bundle(bundle))
