"""`ahl-runtime deploy`: activate another bundle on a running line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahl_runtime.cli import options


def deploy(
    bundle: Annotated[str, typer.Argument(metavar="NAME", help="A file in the folder of the active bundle.")],
    url: options.UrlOption = options.URL,
    token_file: options.TokenFileOption = None,
) -> None:
    """Deploy another bundle to a running line, without losing a frame."""
    if Path(bundle).name != bundle or Path(bundle).suffix != ".ahl":
        from ahl_runtime.core.errors import ConfigError

        raise ConfigError(f"NAME {bundle!r}: expected the name of a file in the folder of the active bundle, X.ahl")
    options.print_line(options.ask_line(url, "/v1/deploy", token_file, {"bundle": bundle}))
