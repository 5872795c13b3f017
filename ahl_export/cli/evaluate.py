"""`ahl evaluate`: how well a run separates its test images."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from ahl_export.cli import extras, options


def evaluate(
    run: options.RunArgument,
    pixel: options.PixelOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the AUROC of a finished run on its test images."""
    extras.require("evaluate", "train")
    from ahl_train.api import evaluate as measure

    found = {key: value for key, value in asdict(measure(run, pixel=pixel)).items() if value is not None}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key, value in found.items():
        typer.echo(f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}")
