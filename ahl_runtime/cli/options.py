"""Code that the device's commands share: options, opening a bundle, asking a running line. It does not import numpy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ahl_runtime.bundle.bundle import Bundle

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The .ahl file.")]
BundleOption = Annotated[Path, typer.Option(help="The .ahl file.")]
ConfigOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings file (TOML). `ahl-runtime init` writes one.")
]
EngineOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Engine to use. `ahl-runtime check` lists them. By default the preferred one."),
]
SourceNameOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Name of the source, such as a camera or a product. "
        "A source without its own calibration uses that of `default`.",
    ),
]
StoreOption = Annotated[Path, typer.Option(metavar="FILE", help="SQLite file of decisions.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Threads for scoring. By default all cores of this process.")
]
TokenFileOption = Annotated[Path | None, typer.Option(metavar="FILE", help="File that holds the server's token.")]
TrustOption = Annotated[
    Path | None,
    typer.Option(metavar="PUBKEY", help="Public key (PEM file). A bundle that this key did not sign is refused."),
]
UrlOption = Annotated[str, typer.Option(help="Address of the server.")]
WhoOption = Annotated[str | None, typer.Option(help="Name for the record. By default the user who runs this command.")]

URL = "http://127.0.0.1:8080"


def open_trusted(path: Path, key: Path | None) -> Bundle:
    """Open a bundle. `key`: the file of a public key, whose owner must have signed it. BundleError, SigningError."""
    from ahl_runtime.bundle.bundle import open_bundle
    from ahl_runtime.bundle.signature import load_public

    return open_bundle(path, trust=load_public(key) if key else None)


def print_line(fields: dict[str, Any]) -> None:
    """Print one line of JSON on stdout."""
    typer.echo(json.dumps(fields, allow_nan=False))


def ask_line(url: str, path: str, token_file: Path | None, body: dict[str, Any] | None = None) -> Any:
    """The JSON answer of a running line to a GET, or to a POST of `body`.

    The token is taken from `token_file` or the environment. ConfigError for a wrong URL; RuntimeFault, with the
    server's reason, if the line refuses or does not answer.
    """
    import urllib.error
    import urllib.request

    from ahl_runtime.core.errors import ConfigError, RuntimeFault
    from ahl_runtime.http.settings import TOKEN_VARIABLE, Settings

    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url!r}: expected http://HOST:PORT")
    token = Settings(token_file=token_file).token() if token_file or TOKEN_VARIABLE in os.environ else None
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeFault(f"{url}: {error.code}: {_reason(error)}") from error
    except (OSError, ValueError) as error:
        raise RuntimeFault(f"{url}: no answer ({error}): does ahl-runtime serve run there?") from error


def _reason(error: Any) -> Any:
    """Why the server refused: the `error` in the JSON body of an HTTPError, else the reason in its status line."""
    try:
        return json.load(error)["error"]
    except (ValueError, KeyError, TypeError):
        return error.reason
