"""Open a sink from its settings; the library of its kind is imported only then."""

from __future__ import annotations

from typing import Annotated

from ahl_runtime.line.kinds import by_kind
from ahl_runtime.line.sinks.kinds import SINKS
from ahl_runtime.line.sinks.outbox import Sink
from ahl_runtime.line.sinks.settings import SinkSettings

AnySink = Annotated[SinkSettings, by_kind(SINKS)]


def open_sink(settings: SinkSettings) -> Sink:
    """Open the sink of these settings. SinkError, ConfigError; also if an extra is not installed."""
    return SINKS[settings.kind].open(settings)
