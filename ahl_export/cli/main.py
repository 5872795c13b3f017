"""`ahl`, the workstation's command line. Heavy imports are inside the commands: --help needs none of them."""

import typer

from ahl_export.cli import extras
from ahl_export.cli.benchmark import benchmark
from ahl_export.cli.data import data
from ahl_export.cli.demo import demo
from ahl_export.cli.evaluate import evaluate
from ahl_export.cli.export import export
from ahl_export.cli.inspect import inspect
from ahl_export.cli.keygen import keygen
from ahl_export.cli.train import train
from ahl_runtime.cli import console

app = console.application("Learn to find defects that no one has seen before, and export a bundle for a device.")

_EXTRA = {"train": "train", "evaluate": "train", "benchmark": "train", "data": "train", "export": "export"}


def main() -> None:
    """Run the command line. Exit code 0, 1 (a check failed) or 2 (an error, in one line on stderr)."""
    console.run(app, "ahl", _expected)


def _expected(error: Exception) -> bool:
    if isinstance(error, extras.MissingExtra):
        return True
    from ahl_export.errors import ExportError
    from ahl_runtime.core.errors import RuntimeFault
    from ahl_train.errors import TrainError
    from calibration import CalibrationError

    return isinstance(error, CalibrationError | ExportError | RuntimeFault | TrainError)


@app.callback(invoke_without_command=True)
def _before(context: typer.Context, version: console.VersionOption = False) -> None:
    """Report a missing extra before the command's options are checked."""
    console.without_command(context, "ahl", version)
    command = context.invoked_subcommand or ""
    if command in _EXTRA:
        extras.require(command, _EXTRA[command])


for command in (train, evaluate, export, inspect, keygen, demo):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(benchmark, name="benchmark")

if __name__ == "__main__":
    main()
