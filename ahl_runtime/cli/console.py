"""Code that both command lines share: make and run a typer app, and print each error as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer
from typer.main import get_command

from ahl_runtime.core.errors import about
from ahl_runtime.core.text import printable
from ahl_runtime.service import log


class UsageError(typer.BadParameter):
    """Options that do not go together, or that lack a partner. The message is shown as it is."""

    def format_message(self) -> str:
        """The message, without typer's "Invalid value"."""
        return self.message


def application(text: str) -> typer.Typer:
    """An app or a group of commands, with `text` as its help. Plain text only: rich is never imported."""
    return typer.Typer(
        help=text,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        suggest_commands=False,  # click does
    )


VersionOption = Annotated[bool, typer.Option("--version", help="Print the version and exit.")]


def without_command(context: typer.Context, name: str, version: bool) -> None:
    """Print the version of the program `name`, if it is asked for, or its help if there is no command."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"{name} {installed('ahl')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(app: typer.Typer, name: str, expected: Callable[[Exception], bool]) -> NoReturn:
    """Run the command line in `sys.argv` and exit.

    The exit code is 0, the command's own, 2 for a usage error and for an error that is `expected`, or 130 for an
    interrupt. Any other exception is a fault of this program: it keeps its traceback.
    """
    log.plain()
    command = get_command(app)
    try:
        with command.make_context(name, sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as early:
        sys.exit(early.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        fail(about(error))
    except Exception as error:
        if (usage := _usage_message(error, name)) is not None:
            fail(usage)
        if not expected(error):
            raise
        fail(str(error))
    sys.exit(0)


def fail(message: str) -> NoReturn:
    """Print the message as one line on stderr and exit with 2."""
    sys.stderr.write(printable(f"error: {message}") + "\n")
    sys.exit(2)


def say(line: str) -> None:
    """Print text from files or devices as one line on stdout."""
    typer.echo(printable(line))


def say_progress(line: str) -> None:
    """Print a line about the work on stderr: stdout is for results."""
    typer.echo(printable(line), err=True)


def _usage_message(error: Exception, name: str) -> str | None:
    """What was wrong with the command line, or None for any other error.

    The base class of usage errors is click's in some versions of typer and typer's own in others, and typer exports
    neither by one name. Both have the method `format_message`.
    """
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    where = getattr(getattr(error, "ctx", None), "command_path", name)
    return f"{message().rstrip('.')}; see '{where} --help'"
