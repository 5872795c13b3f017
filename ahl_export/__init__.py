"""The exporter: from g to a verified and calibrated bundle for a device.

    import ahl_export

    bundle = ahl_export.export("runs/first", "cells.ahl", alpha=0.01)
    print(ahl_export.inspect(bundle)["artefacts"][0]["decision"]["promise"])

Every failure is an `ExportError`.
"""

from typing import TYPE_CHECKING

from ahl_runtime.core import lazy

if TYPE_CHECKING:
    from ahl_export.api import export, inspect
    from ahl_export.errors import ExportError
    from ahl_export.options import ExportOptions
    from ahl_runtime.bundle.bundle import Bundle

    __version__: str

__all__ = ["Bundle", "ExportError", "ExportOptions", "export", "inspect"]

__getattr__, __dir__ = lazy.door(
    __name__,
    {
        **dict.fromkeys(("export", "inspect"), "ahl_export.api"),
        "Bundle": "ahl_runtime.bundle.bundle",
        "ExportError": "ahl_export.errors",
        "ExportOptions": "ahl_export.options",
    },
    extra="export",
)
