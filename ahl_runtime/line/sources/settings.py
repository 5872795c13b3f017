"""The settings that all kinds of source share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ahl_runtime.line.settings import Name, Policy, Seconds, Section


class Region(Section):
    """A rectangle in pixels; `x` and `y` count from the upper left corner."""

    x: Annotated[int, Field(ge=0)]
    y: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


class SourceSettings(Section):
    """`queue`: the most pending frames. `max_fps`: the most frames per second; frames in between are skipped.

    A subclass declares its `kind`, a literal, and may declare another `policy`.
    """

    name: Name
    kind: str
    policy: Policy = "drop-oldest"
    queue: Annotated[int, Field(ge=1, le=10_000)] = 4
    max_fps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    roi: Region | None = None


class StreamSettings(SourceSettings):
    """`stall`: seconds without a frame before a reconnect. `frozen`: equal frames in a row for an alarm; 0: no alarm.

    `retry`: seconds before the first attempt to reconnect. `retry_most`: the most seconds before later attempts.
    """

    stall: Seconds = 5.0
    frozen: Annotated[int, Field(ge=0)] = 50
    retry: Seconds = 0.5
    retry_most: Seconds = 30.0
