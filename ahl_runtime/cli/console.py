"""What both command lines share: one line for each error, exit code 2, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ahl_runtime.core.text import printable


def run(
    command: Any,
    name: str,
    expected: Callable[[Exception], bool],
    usage_error: type[Exception],
    left: type[Exception],
) -> None:
    """Run a command and exit: 0, its own code, 2 for a usage error and an `expected` one, 130 when interrupted.

    `command`: click's, or that of a library that carries click inside; `usage_error` and `left` are its bases of usage
    errors and of early exits. Any other exception is a fault of ours and keeps its traceback.
    """
    try:
        with command.make_context(name, sys.argv[1:]) as context:
            command.invoke(context)
    except usage_error as error:
        fail(_usage(name, error))
    except left as early:
        sys.exit(getattr(early, "exit_code", 0))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        fail(f"{error.filename or 'the output'}: {error.strerror or error}: check the place and its free space")
    except Exception as error:
        if not expected(error):
            raise
        fail(str(error))
    sys.exit(0)


def fail(message: str) -> NoReturn:
    """Print the one line on stderr and exit 2."""
    sys.stderr.write(printable(f"error: {message}") + "\n")
    sys.exit(2)


def _usage(name: str, error: Any) -> str:
    where = getattr(getattr(error, "ctx", None), "command_path", name)
    return f"{error.format_message().rstrip('.')}; see '{where} --help'"
