"""`ahl-runtime bench`: what scoring costs on this device, and the session options that make it cost least."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ahl_runtime.cli import options
from ahl_runtime.core.text import printable

if TYPE_CHECKING:
    from ahl_runtime.tuning.tune import Trial


@click.command()
@options.bundle
@click.option("--engine", metavar="NAME", help="Only this engine, see check; all that can run here by default.")
@click.option("--json", "target", type=options.PATH, metavar="FILE", help="Write the figures to this file too.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Time for each measurement of an engine.",
)
@click.option("--tune", "tuning", is_flag=True, help="Find the fastest session options and keep them for this bundle.")
@options.trust
@options.threads
def bench(
    bundle: Path,
    engine: str | None,
    target: Path | None,
    seconds: float,
    tuning: bool,
    trust: Path | None,
    threads: int | None,
) -> None:
    """Measure each engine: time of a frame, frames per second, memory, start, stages.

    Each runs in a process of its own, and they take turns. --tune tries the session options of ONNX Runtime first and
    writes the best to BUNDLE.tune.json: scoring takes them from there, for this bundle on this device.
    """
    from ahl_runtime.core.errors import OutputError
    from ahl_runtime.core.files import write_whole
    from ahl_runtime.tuning import bench as measured

    opened = options.open_trusted(bundle, trust)
    if tuning:
        from ahl_runtime.tuning.tune import tune

        click.echo(printable(f"written: {tune(opened, engine, seconds, _say_trial)}"))
    found = measured.bench(opened, measured.Asked(engine, seconds, threads), lambda line: click.echo(line, err=True))
    for line in measured.as_text(found):
        click.echo(printable(line))
    if target is not None:
        try:
            write_whole(target, [json.dumps(found, indent=1, allow_nan=False).encode() + b"\n"])
        except OSError as error:
            raise OutputError(f"{target}: cannot be written ({error.strerror or error}): choose another") from error


def _say_trial(trial: Trial) -> None:
    fields = ", ".join(f"{key} {value}" for key, value in trial.options)
    click.echo(f"{trial.engine}: {trial.ms.median:.2f} ms: {fields}{' <- kept' if trial.kept else ''}")
