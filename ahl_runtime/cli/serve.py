"""`ahl-runtime serve`: run a line until it is stopped."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Any

import typer

from ahl_runtime.cli import OWN_THRESHOLDS, console, options
from ahl_runtime.line.sources.kinds import placed, places


def serve(
    config: options.ConfigOption = None,
    bundle: Annotated[Path | None, typer.Option(help="The .ahl file.")] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="KIND:PLACE",
            help=f"A source with default settings: {places()}. Give the option once for each source.",
        ),
    ] = None,
    store: Annotated[Path | None, typer.Option(metavar="FILE", help="SQLite file of decisions.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. By default 127.0.0.1.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on. By default 8080. 0 takes any free port."),
    ] = None,
    trust: options.TrustOption = None,
    engine: options.EngineOption = None,
    threads: options.ThreadsOption = None,
    side_by_side: Annotated[
        bool | None,
        typer.Option(
            "--side-by-side/--one-by-one",
            help="Score waiting frames in parallel, each on one core. This takes more memory on OpenVINO, "
            "where it is off by default.",
        ),
    ] = None,
) -> None:
    """Score frames from cameras, folders and HTTP until the service is stopped.

    The operator's page is at /. Options here replace those of the settings file.
    """
    if config is None and bundle is None:
        raise console.UsageError("Give --config FILE, or --bundle FILE")
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
    gc.set_threshold(*OWN_THRESHOLDS)  # the start is over, and a service runs for months
    raise typer.Exit(run(load(config, _settings(given, sources or []))))


def _settings(given: dict[str, dict[str, Any]], sources: list[str]) -> dict[str, Any]:
    """The settings that were given as options, in the structure of line.toml. ConfigError."""
    settings: dict[str, Any] = {}
    for section, values in given.items():
        if found := {key: value for key, value in values.items() if value is not None}:
            settings[section] = found
    if sources:
        settings["source"] = [placed(text, i + 1) for i, text in enumerate(sources)]
    return settings
