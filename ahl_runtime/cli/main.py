"""`ahl-runtime`, the device's command line: one line for each result, one line for each error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from ahl_runtime.cli import console
from ahl_runtime.core.errors import RuntimeFault

_NAME = "ahl-runtime"

_COMMANDS = ("check", "score", "calibrate", "feedback", "init", "serve", "status", "deploy", "bench")


def main() -> None:
    """Run the command line. Exit code 0, 1 (a check failed) or 2 (an error, in one line on stderr)."""
    # OpenVINO imports its model converter, which brings a telemetry client. Nothing here converts models: block it.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    console.run(application(sys.argv[1:2]), _NAME, _expected)


def application(asked: Sequence[str] = ()) -> typer.Typer:
    """The commands, as an app. If `asked` names one of them, only its module is imported, so that it starts faster."""
    app = console.application("Score images with an .ahl bundle on the device.")
    app.callback(invoke_without_command=True)(_without_command)
    for name in [name for name in _COMMANDS if name in asked] or _COMMANDS:
        command = getattr(import_module(f"ahl_runtime.cli.{name}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command()(command)
    return app


def _expected(error: Exception) -> bool:
    from calibration import CalibrationError  # here, because it imports numpy, which --help does not need

    return isinstance(error, RuntimeFault | CalibrationError)


def _without_command(context: typer.Context, version: console.VersionOption = False) -> None:
    console.without_command(context, _NAME, version)


if __name__ == "__main__":
    main()
