"""`ahl-runtime status`: print the state of a running line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ahl_runtime.cli import console, options

_COUNTS = ("frames", "passed", "unsure", "rejected", "dropped", "queue")


def status(
    url: options.UrlOption = options.URL,
    token_file: options.TokenFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the state as one JSON line.")] = False,
) -> None:
    """Print the state of a running line.

    Exits with 1 if anything needs attention.
    """
    state = options.ask_line(url, "/v1/state", token_file)
    if as_json:
        options.print_line(state)
    else:
        for line in _as_text(state):
            console.say(line)
    alarmed = any(source["drift"]["state"] == "alarm" for source in state["sources"])
    raise typer.Exit(1 if state["faults"] or alarmed else 0)


def _as_text(state: dict[str, Any]) -> Iterator[str]:
    model = state["model"]
    yield f"model {model['name']} {model['digest'][:12]} on {model['engine']}"
    for source in state["sources"]:
        counts = ", ".join(f"{source[key]} {key}" for key in _COUNTS)
        yield f"source {source['name']}: {source['state']}, {source['said']}: {counts}; {source['drift']['said']}"
    for fault in state["faults"]:
        yield f"fault: {fault}"
