"""`ahl demo`: every step on real images."""

from pathlib import Path
from typing import Annotated

import typer

from ahl_export.cli import extras, options
from ahl_runtime.cli import console


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run, the bundle and the report.")] = Path("demo"),
    data: options.DataOption = "elpv",
    shots: options.ShotsOption = 10,
    seed: options.SeedOption = 0,
    alpha: options.AlphaOption = 0.01,
    cache: options.CacheOption = None,
) -> None:
    """Train, export, calibrate and score on real images, and write a report."""
    extras.require("demo", "demo" if data == "elpv" else "export")
    from ahl_export.report.demo import demo as run

    typer.echo(run(out, data=data, shots=shots, seed=seed, alpha=alpha, cache=cache, report=console.say_progress))
