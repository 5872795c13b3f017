"""What the settings of all kinds of source have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ahl_runtime.line.settings import Name, Policy, Seconds, Section


class Region(Section):
    """In pixels, from the upper left corner."""

    x: Annotated[int, Field(ge=0)]
    y: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


class SourceSettings(Section):
    """`queue`: frames that may wait. `max_fps`: frames a second that are taken, those between are left out.

    A subclass declares its `kind`, a literal, and may declare another `policy`.
    """

    name: Name
    kind: str
    policy: Policy = "drop-oldest"
    queue: Annotated[int, Field(ge=1, le=10_000)] = 4
    max_fps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    roi: Region | None = None


class StreamSettings(SourceSettings):
    """`stall`: seconds without a frame until it is opened anew. `frozen`: equal frames in a row that alarm; 0: never.

    `retry`: seconds before the first attempt to reconnect, `retry_most` before later ones.
    """

    stall: Seconds = 5.0
    frozen: Annotated[int, Field(ge=0)] = 50
    retry: Seconds = 0.5
    retry_most: Seconds = 30.0
