"""`ahl-runtime`, the device's command line: one line for each result, one line for each error."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ahl_runtime.cli import console
from ahl_runtime.cli.bench import bench
from ahl_runtime.cli.calibrate import calibrate
from ahl_runtime.cli.check import check
from ahl_runtime.cli.deploy import deploy
from ahl_runtime.cli.feedback import feedback
from ahl_runtime.cli.init import init
from ahl_runtime.cli.score import score
from ahl_runtime.cli.serve import serve
from ahl_runtime.cli.status import status
from ahl_runtime.core.errors import RuntimeFault

_NAME = "ahl-runtime"

app = console.application("Score images with an .ahl bundle on the device.")


def main() -> None:
    """Run the command line. Exit code 0, 1 (a check failed) or 2 (an error, in one line on stderr)."""
    # OpenVINO imports its model converter, with a client of telemetry, unless there is none: nothing here converts.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    console.run(app, _NAME, _expected)


def _expected(error: Exception) -> bool:
    from calibration import CalibrationError  # here: it brings numpy, which --help does not need

    return isinstance(error, RuntimeFault | CalibrationError)


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"{_NAME} {installed('ahl')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (check, score, calibrate, init, serve, status, deploy, bench):
    app.command()(command)
app.add_typer(feedback, name="feedback")

if __name__ == "__main__":
    main()
