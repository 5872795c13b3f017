"""What both command lines share: one line for each error, exit code 2, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

# Every usage error's base. Some versions of typer carry click inside, some beside, so it is found by its child.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]


def run(app: typer.Typer, expected: Callable[[Exception], bool]) -> None:
    """Run a command line and exit: 0, the command's own code, or 2 for a usage error and an `expected` one.

    Any other exception is a fault of ours and keeps its traceback.
    """
    try:
        code = app(standalone_mode=False)
    except _USAGE_ERROR as error:
        fail(_usage(app, error))
    except typer.Abort:
        sys.exit(130)
    except OSError as error:
        fail(f"{error.filename or 'the output'}: {error.strerror or error}: check the place and its free space")
    except Exception as error:
        if not expected(error):
            raise
        fail(str(error))
    else:
        sys.exit(code if isinstance(code, int) else 0)


def fail(message: str) -> NoReturn:
    """Print the one line on stderr and exit 2."""
    typer.echo(printable(f"error: {message}"), err=True)
    sys.exit(2)


def printable(text: str) -> str:
    """One printable line: names from files may hold anything."""
    joined = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def _usage(app: typer.Typer, error: Any) -> str:
    where = getattr(getattr(error, "ctx", None), "command_path", app.info.name)
    return f"{error.format_message().rstrip('.')}; see '{where} --help'"
