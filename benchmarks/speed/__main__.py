"""`python -m benchmarks.speed` (make bench): scoring, serving, training and starting, compared with other programs."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.speed.sections import SECTIONS
from benchmarks.speed.sections import bench as run


def bench(
    bundle: Annotated[Path, typer.Option(help="The .ahl file, best with all its artefacts.")],
    out: Annotated[Path, typer.Option(help="Folder of results. A section that is there is not measured again.")] = Path(
        "bench"
    ),
    only: Annotated[str, typer.Option(help=f"Sections, with commas: {', '.join(SECTIONS)}.")] = ",".join(SECTIONS),
    page: Annotated[Path | None, typer.Option(help="Page to write the tables into, between its markers.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of each measurement, in seconds.")] = 10.0,
) -> None:
    """Measure scoring, serving, training and starting, and compare them with other programs."""
    for file in run(bundle, out, only=only.split(","), page=page, seconds=seconds, report=typer.echo):
        typer.echo(f"written: {file}")


typer.run(bench)
