"""`ahl-runtime deploy`: activate another bundle on a running line."""

from __future__ import annotations

from typing import Annotated

import typer

from ahl_runtime.cli import options


def deploy(
    bundle: Annotated[str, typer.Argument(metavar="NAME", help="A file in the folder of the active bundle.")],
    url: options.UrlOption = options.URL,
    token_file: options.TokenFileOption = None,
) -> None:
    """Deploy another bundle to a running line, without losing a frame."""
    options.print_line(options.ask_line(url, "/v1/deploy", token_file, {"bundle": bundle}))
