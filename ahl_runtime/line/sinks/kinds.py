"""The registry of sink kinds: those of ahl and of plug-ins. The module of a kind is imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ahl_runtime.core.errors import ConfigError
from ahl_runtime.core.plugins import Registry

if TYPE_CHECKING:
    from ahl_runtime.line.sinks.outbox import Sink
    from ahl_runtime.line.sinks.settings import SinkSettings


@dataclass(frozen=True)
class SinkKind:
    """A kind of sink. `settings`: its settings model. `open`: opens a sink with them; SinkError: ahl tries again."""

    settings: type[SinkSettings]
    open: Callable[[Any], Sink]

    def __post_init__(self) -> None:
        from ahl_runtime.line.kinds import check_model

        check_model(self.settings)


SINKS: Registry[SinkKind] = Registry(
    "ahl.sinks",
    {
        "jsonl": "ahl_runtime.line.sinks.jsonl:JSONL",
        "webhook": "ahl_runtime.line.sinks.webhook:WEBHOOK",
        "mqtt": "ahl_runtime.line.sinks.mqtt:MQTT",
        "modbus": "ahl_runtime.line.sinks.modbus:MODBUS",
        "opcua": "ahl_runtime.line.sinks.opcua:OPCUA",
    },
    "an ahl_runtime.line.sinks.kinds.SinkKind",
    lambda value: isinstance(value, SinkKind),
    ConfigError,
)
