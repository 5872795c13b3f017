"""`ahl data`: check a published dataset, or make one."""

from pathlib import Path
from typing import Annotated

import typer

from ahl_export.cli import extras, options
from ahl_runtime.cli import console

data = console.application("Check a published dataset, or make one.")


@data.command()
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A published dataset: mvtec, aitex, sdd, elpv and so on.")
    ],
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of the dataset. Leave it out for elpv.")
    ] = None,
) -> None:
    """Compare the counts of a dataset with Table 1 of the paper.

    Exits with 1 if they differ.
    """
    extras.require("data check", "train")
    from ahl_train.data.readers import check as compare

    report = compare(name, directory)
    for line in report.lines():
        typer.echo(line)
    raise typer.Exit(0 if report.ok else 1)


@data.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    normals: Annotated[int, typer.Option(help="Number of normal images.")] = 200,
    anomalies: Annotated[int, typer.Option(help="Number of anomalies.")] = 50,
    size: Annotated[int, typer.Option(help="Width and height in pixels.")] = 256,
    seed: options.SeedOption = 0,
) -> None:
    """Make textured images with defects and pixel masks, in the layout of MVTec AD."""
    extras.require("data synth", "train")
    from ahl_train.data.synth import write_dataset

    typer.echo(str(write_dataset(out, normals=normals, anomalies=anomalies, seed=seed, size=size)))
