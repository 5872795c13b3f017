"""The sink that the settings ask for; its library is imported only then."""

from __future__ import annotations

from ahl_runtime.line.sinks.outbox import Sink
from ahl_runtime.line.sinks.settings import JsonlSink, ModbusSink, MqttSink, OpcuaSink, SinkSettings, WebhookSink


def open_sink(part: SinkSettings) -> Sink:
    """SinkError, ConfigError; also where its extra is not installed."""
    match part:
        case JsonlSink():
            from ahl_runtime.line.sinks.jsonl import Jsonl

            return Jsonl(part)
        case WebhookSink():
            from ahl_runtime.line.sinks.webhook import Webhook

            return Webhook(part)
        case MqttSink():
            from ahl_runtime.line.sinks.mqtt import Mqtt

            return Mqtt(part)
        case ModbusSink():
            from ahl_runtime.line.sinks.modbus import Modbus

            return Modbus(part)
        case OpcuaSink():
            from ahl_runtime.line.sinks.opcua import Opcua

            return Opcua(part)
