"""What the settings of all kinds of sink have in common."""

from __future__ import annotations

from typing import get_args

from ahl_runtime.line.settings import Name, Outcome, Seconds, Section

_ALL: tuple[Outcome, ...] = get_args(Outcome)


class SinkSettings(Section):
    """`only`: the outcomes that are sent. `timeout`: seconds for a message; `retry`, `retry_most`: between attempts.

    A subclass declares its `kind`, a literal.
    """

    name: Name
    kind: str
    only: tuple[Outcome, ...] = _ALL
    timeout: Seconds = 5.0
    retry: Seconds = 0.5
    retry_most: Seconds = 30.0
