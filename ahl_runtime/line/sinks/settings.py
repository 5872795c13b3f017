"""The settings that all kinds of sink share."""

from __future__ import annotations

from typing import get_args

from ahl_runtime.line.settings import Name, Outcome, Seconds, Section

_ALL: tuple[Outcome, ...] = get_args(Outcome)


class SinkSettings(Section):
    """`only`: the outcomes to send. `timeout`: seconds for a message. `retry`, `retry_most`: seconds between attempts.

    A subclass declares its `kind`, a literal.
    """

    name: Name
    kind: str
    only: tuple[Outcome, ...] = _ALL
    timeout: Seconds = 5.0
    retry: Seconds = 0.5
    retry_most: Seconds = 30.0
