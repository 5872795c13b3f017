"""The settings of a sink of any kind, and the sink that they ask for; its library is imported only then."""

from __future__ import annotations

from typing import Annotated

from ahl_runtime.line.kinds import by_kind
from ahl_runtime.line.sinks.kinds import SINKS
from ahl_runtime.line.sinks.outbox import Sink
from ahl_runtime.line.sinks.settings import SinkSettings

AnySink = Annotated[SinkSettings, by_kind(SINKS)]


def open_sink(part: SinkSettings) -> Sink:
    """SinkError, ConfigError; also where its extra is not installed."""
    return SINKS[part.kind].open(part)
