"""`ahl-runtime bench`: measure the time and memory of scoring on this device, and find the fastest session options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ahl_runtime.cli import console, options

if TYPE_CHECKING:
    from ahl_runtime.tuning.tune import Trial


def _positive(value: float) -> float:
    if not value > 0:
        raise typer.BadParameter(f"{value} is not in the range x>0.")
    return value


def bench(
    bundle: options.BundleOption,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Measure this engine alone. By default every engine that can run here."),
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to this file too.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(callback=_positive, help="Length of each measurement, in seconds, above 0.")
    ] = 5.0,
    tuning: Annotated[
        bool, typer.Option("--tune", help="Find the fastest session options and keep them for this bundle.")
    ] = False,
    trust: options.TrustOption = None,
    threads: options.ThreadsOption = None,
) -> None:
    """Measure each engine: time of a frame, frames per second, memory, start time, stages.

    Each engine runs in its own process, and the engines take turns. --tune tries session options of ONNX Runtime first
    and writes the best to BUNDLE.tune.json. Scoring on this device then uses them for this bundle.
    """
    from ahl_runtime.tuning import bench as measured

    opened = options.open_trusted(bundle, trust)
    if tuning:
        from ahl_runtime.tuning.tune import tune

        console.say(f"written: {tune(opened, engine, seconds, _say_trial)}")
    found = measured.bench(opened, measured.Asked(engine, seconds, threads), console.say_progress)
    for line in measured.as_text(found):
        console.say(line)
    if target is not None:
        _write(target, found)


def _say_trial(trial: Trial) -> None:
    fields = ", ".join(f"{key} {value}" for key, value in trial.options)
    typer.echo(f"{trial.engine}: {trial.ms.median:.2f} ms: {fields}{' <- kept' if trial.kept else ''}")


def _write(target: Path, found: dict[str, Any]) -> None:
    from ahl_runtime.core.errors import OutputError
    from ahl_runtime.core.files import write_whole

    try:
        write_whole(target, [json.dumps(found, indent=1, allow_nan=False).encode() + b"\n"])
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error}): choose another") from error
