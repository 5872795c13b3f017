"""`python -m benchmarks.speed`: scoring, serving, training and starting, beside what people use today: make bench."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.speed.sections import SECTIONS
from benchmarks.speed.sections import bench as run


def bench(
    bundle: Annotated[Path, typer.Option(help="The .ahl file, best with all its artefacts.")],
    out: Annotated[Path, typer.Option(help="The folder of results; a section that it holds is not run again.")] = Path(
        "bench"
    ),
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(SECTIONS)}, with commas.")] = ",".join(SECTIONS),
    page: Annotated[Path | None, typer.Option(help="A page to write tables into, between its markers.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each measurement of a contestant.")] = 10.0,
) -> None:
    """Measure scoring, serving, training and starting beside what people use today."""
    for file in run(bundle, out, only=only.split(","), page=page, seconds=seconds, report=typer.echo):
        typer.echo(f"written: {file}")


typer.run(bench)
