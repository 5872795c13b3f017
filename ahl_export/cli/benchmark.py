"""`ahl benchmark`: a grid of runs, and its table."""

from pathlib import Path
from typing import Annotated, cast

import typer

from ahl_export.cli import extras, options
from ahl_runtime.cli import console

benchmark = console.application("Run a grid of systems, settings, shots and seeds, or write its table.")


@benchmark.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    data: Annotated[str | None, typer.Option(help="The dataset, as for `ahl train`.  [required]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results. What it holds is not run again.  [required]")
    ] = None,
    setting: Annotated[str, typer.Option(help="general, hard, or both, separated by a comma.")] = "general,hard",
    shots: Annotated[str, typer.Option(help="Numbers of labelled anomalies, separated by commas.")] = "1,10",
    systems: Annotated[
        str,
        typer.Option(
            help="Systems, separated by commas, or groups of them: all, default, rivals (patchcore and padim; "
            "they need the extra [rivals])."
        ),
    ] = "default",
    seeds: Annotated[int, typer.Option(help="Number of seeds: 0, 1 and so on.")] = 3,
    schedule: options.ScheduleOption = "auto",
    epochs: options.EpochsOption = None,
    epoch: Annotated[
        str,
        typer.Option(
            help="last: AUROC after the last epoch. best: also that of the best epoch, which is chosen on the test "
            "images, as the code of the paper reports it; use it for comparison alone."
        ),
    ] = "last",
    pixel: options.PixelOption = False,
    backbone: options.BackboneOption = options.BACKBONE,
    backbone_weights: options.WeightsOption = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Number of processes, of one thread each. By default one process with all threads, or all cores of "
            "Ray."
        ),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster to run on. local: start a new one here.")
    ] = None,
    cache: options.CacheOption = None,
) -> None:
    """Run a grid of systems, settings, shots and seeds. `ahl benchmark table DIR` writes its table."""
    if context.invoked_subcommand:
        return
    if data is None or out is None:
        raise console.UsageError(f"Missing option '--{'data' if data is None else 'out'}'")
    extras.require("benchmark", "train")
    from ahl_train.benchmark.grid import Grid, choose_systems, run_grid
    from ahl_train.data.split import Setting

    grid = Grid(
        data=data,
        settings=cast(tuple[Setting, ...], _listed(setting)),  # each is checked with its cell
        shots=_numbers(shots),
        systems=choose_systems(systems),
        seeds=seeds,
        schedule=schedule,
        epochs=epochs,
        epoch=epoch,
        pixel=pixel,
        backbone=backbone,
        backbone_weights=backbone_weights,
    )
    results = run_grid(grid, out, cache=cache, jobs=jobs, ray=ray, report=console.say_progress)
    console.say_progress(f"written: {results}; next: ahl benchmark table {out}")


@benchmark.command()
def table(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="One or more folders of results.")],
    page: Annotated[Path | None, typer.Option(help="Write the table into this page, between its markers.")] = None,
) -> None:
    """Write the tables of a benchmark: table.md, table.html and table.csv, beside the figures of the paper.

    With several folders, print one Markdown table, or write it into the page: a row for each dataset, a column for
    each system.
    """
    extras.require("benchmark table", "train")
    if len(folders) == 1:
        from ahl_train.benchmark.table import write_tables

        for file in write_tables(folders[0], page):
            typer.echo(str(file))
        return
    from ahl_train.benchmark.sets import gather, sets_to_markdown, write_sets

    if page is None:
        typer.echo(sets_to_markdown(gather(folders)), nl=False)
    else:
        typer.echo(str(write_sets(folders, page)))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _listed(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give numbers with commas, such as 1,10", param_hint="'--shots'") from None
