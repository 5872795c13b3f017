"""`ahl-runtime init`: write a settings file for `ahl-runtime serve`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("line.toml"),
) -> None:
    """Write a settings file with comments for `ahl-runtime serve`.

    An existing file is not overwritten.
    """
    from ahl_runtime.core.errors import OutputError
    from ahl_runtime.core.files import write_new

    body = (resources.files("ahl_runtime.service") / "line.toml").read_bytes()
    try:
        write_new(file, [body, _plug_ins().encode()])
    except FileExistsError as error:
        raise OutputError(f"{file}: exists already: choose another name") from error
    typer.echo(f"wrote {file}: set the bundle and a source, then ahl-runtime serve --config {file}")


def _plug_ins() -> str:
    """Comment lines with the kinds of source and sink that installed plug-ins add."""
    from ahl_runtime.line.sinks.kinds import SINKS
    from ahl_runtime.line.sources.kinds import SOURCES

    added = (("source", SOURCES.added), ("sink", SINKS.added))
    lines = [f"# Kinds of [[{what}]] that plug-ins add here: {', '.join(names)}" for what, names in added if names]
    return "".join(f"\n{line}\n" for line in lines)
