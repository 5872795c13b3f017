"""`ahl-runtime serve`, `init`, `status` and `deploy`: a line that runs, and what is asked of it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import click

from ahl_runtime.cli import options
from ahl_runtime.core.errors import ConfigError, OutputError, RuntimeFault
from ahl_runtime.core.text import printable

config_option = click.option("--config", type=options.PATH, metavar="FILE", help="Settings, TOML: see init.")
token_file = click.option("--token-file", type=options.PATH, metavar="FILE", help="Holds the server's token.")
url_option = click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server's address.")


@click.command()
@config_option
@click.option("--bundle", type=options.PATH, help="The .ahl file.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="KIND:PLACE",
    help=f"{options.PLACES}, with the default settings; repeatable.",
)
@click.option("--store", type=options.PATH, metavar="FILE", help="The SQLite file of decisions.")
@click.option("--host", help="Where it listens; loopback by default.")
@click.option("--port", type=click.IntRange(0, 65535), help="8080 by default; 0 for any that is free.")
@options.trust
@options.engine
@options.threads
@click.option(
    "--side-by-side/--one-by-one",
    default=None,
    help="Score frames that wait on a core each; by default not on OpenVINO, where it takes memory.",
)
def serve(
    config: Path | None,
    bundle: Path | None,
    sources: tuple[str, ...],
    store: Path | None,
    host: str | None,
    port: int | None,
    trust: Path | None,
    engine: str | None,
    threads: int | None,
    side_by_side: bool | None,
) -> None:
    """Decide on frames from cameras, folders and HTTP until told to stop; the operator's page is at /."""
    if config is None and bundle is None:
        raise click.UsageError("Give --config FILE, or --bundle FILE")
    from ahl_runtime.service.config import load
    from ahl_runtime.service.process import run

    given: dict[str, dict[str, Any]] = {
        "model": {
            "bundle": bundle,
            "engine": engine,
            "threads": threads,
            "side_by_side": side_by_side,
            "trust": trust,
        },
        "store": {"path": store},
        "http": {"host": host, "port": port},
    }
    flags: dict[str, Any] = {}
    for part, values in given.items():
        if found := {key: value for key, value in values.items() if value is not None}:
            flags[part] = found
    if sources:
        flags["source"] = [options.placed(text, i + 1) for i, text in enumerate(sources)]
    click.get_current_context().exit(run(load(config, flags)))


@click.command()
@click.argument("file", type=options.PATH, metavar="FILE", default=Path("line.toml"))
def init(file: Path) -> None:
    """Write a commented settings file for serve; one that is there stays."""
    from ahl_runtime.core.files import write_new

    body = (resources.files("ahl_runtime.service") / "line.toml").read_bytes()
    try:
        write_new(file, [body])
    except FileExistsError as error:
        raise OutputError(f"{file}: is there already: choose another name") from error
    click.echo(f"wrote {file}: set the bundle and a source, then ahl-runtime serve --config {file}")


@click.command()
@url_option
@token_file
@click.option("--json", "as_json", is_flag=True, help="Print the state as one JSON line.")
def status(url: str, token_file: Path | None, as_json: bool) -> None:
    """Print how a line that runs is doing; exit code 1 if something is to be seen to."""
    state = _asked(url, "/v1/state", token_file)
    if as_json:
        options.print_line(state)
    else:
        model = state["model"]
        click.echo(printable(f"model {model['name']} {model['digest'][:12]} on {model['engine']}"))
        for s in state["sources"]:
            counts = ", ".join(f"{s[k]} {k}" for k in ("frames", "passed", "unsure", "rejected", "dropped", "queue"))
            click.echo(printable(f"source {s['name']}: {s['state']}, {s['said']}: {counts}; {s['drift']['said']}"))
        for fault in state["faults"]:
            click.echo(printable(f"fault: {fault}"))
    troubled = state["faults"] or any(s["drift"]["state"] == "alarm" for s in state["sources"])
    click.get_current_context().exit(1 if troubled else 0)


@click.command()
@click.argument("bundle", metavar="NAME")
@url_option
@token_file
def deploy(bundle: str, url: str, token_file: Path | None) -> None:
    """Swap the bundle of a line that runs, without losing a frame. NAME: a file beside the bundle in force."""
    options.print_line(_asked(url, "/v1/deploy", token_file, {"bundle": bundle}))


def _asked(url: str, path: str, token_file: Path | None, body: dict[str, Any] | None = None) -> Any:
    """The server's answer; RuntimeFault with its reason."""
    import os
    import urllib.error
    import urllib.request

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
        try:
            reason = json.load(error)["error"]
        except (ValueError, KeyError, TypeError):
            reason = error.reason
        raise RuntimeFault(f"{url}: {error.code}: {reason}") from error
    except (OSError, ValueError) as error:
        raise RuntimeFault(f"{url}: no answer ({error}): does ahl-runtime serve run there?") from error
