"""What the device's commands share: options, the opened bundle, lines of JSON. Light: --help needs no numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahl_runtime.line.sources.kinds import placed as placed
from ahl_runtime.line.sources.kinds import places

if TYPE_CHECKING:
    from ahl_runtime.bundle.bundle import Bundle

PATH = click.Path(path_type=Path)

threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads for scoring; every core of this process by default.",
)
engine = click.option("--engine", metavar="NAME", help="The engine, see check; the preferred one by default.")
trust = click.option(
    "--trust",
    type=PATH,
    metavar="PUBKEY",
    help="Refuse a bundle that the owner of this key, a PEM file, did not sign.",
)
bundle = click.option("--bundle", required=True, type=PATH, help="The .ahl file.")
source_name = click.option(
    "--source-name",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The source, such as a camera or a product; one without its own calibration takes the default's.",
)
store = click.option("--store", required=True, type=PATH, metavar="FILE", help="The SQLite file of decisions.")

PLACES = places()


def open_trusted(path: Path, key: Path | None) -> Bundle:
    """The bundle; where a public key's file is given, only if its owner signed it. BundleError, SigningError."""
    from ahl_runtime.bundle.bundle import open_bundle
    from ahl_runtime.bundle.signature import load_public

    return open_bundle(path, trust=load_public(key) if key else None)


def print_line(fields: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    click.echo(json.dumps(fields, allow_nan=False))
