"""`ahl inspect`: what a bundle holds."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ahl_export.cli import extras
from ahl_runtime.cli import console


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The .ahl file.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: the manifest and the digest.")
    ] = False,
    plots: Annotated[Path | None, typer.Option(help="Folder for plots of the calibration of each artefact.")] = None,
) -> None:
    """Print what a bundle holds: its artefacts, their difference from the model, and their guarantees."""
    from ahl_export import inspection
    from ahl_runtime.bundle.bundle import open_bundle

    opened = open_bundle(bundle)
    if as_json:
        typer.echo(json.dumps(inspection.as_json(opened), allow_nan=False))
    else:
        for line in inspection.as_text(opened).splitlines():
            console.say(line)
    if plots is not None:
        extras.require("inspect --plots", "export")
        from ahl_export.report.calibration_plots import write_plots

        for file in write_plots(opened, plots):
            console.say_progress(f"written: {file}")
