"""MQTT, quality of service 1: delivered when the broker says so."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ahl_runtime.core.errors import SinkError
from ahl_runtime.line.secret import read_secret
from ahl_runtime.line.sinks.kinds import SinkKind
from ahl_runtime.line.sinks.settings import SinkSettings
from ahl_runtime.line.store.journal import Message


class MqttSink(SinkSettings):
    """QoS 1. `topic`: {source} and {outcome} are filled in."""

    kind: Literal["mqtt"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    topic: str = "ahl/{source}"
    user: str | None = None
    password_file: Path | None = None
    tls: bool = False
    authority: Path | None = None


class Mqtt:
    """Connected when this returns; SinkError. The outbox makes a new one after a failure."""

    def __init__(self, part: MqttSink) -> None:
        try:
            from paho.mqtt import client, enums
        except ImportError as error:
            raise SinkError("MQTT needs the extra [mqtt]: pip install 'ahl[mqtt]'") from error
        self._part = part
        self._client: Any = client.Client(enums.CallbackAPIVersion.VERSION2)
        if part.user is not None:
            password = read_secret(part.password_file) if part.password_file else None
            self._client.username_pw_set(part.user, password)
        if part.tls:
            self._client.tls_set_context(ssl.create_default_context(cafile=part.authority))
        told = threading.Event()
        self._answer: Any = None
        self._broken = False

        def connected(_: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
            self._answer = reason
            told.set()

        self._client.on_connect = connected
        self._client.connect_timeout = part.timeout
        try:
            self._client.connect(part.host, part.port, keepalive=15)
        except OSError as error:
            raise SinkError(f"the broker at {part.host}:{part.port} cannot be reached ({error})") from error
        self._client.loop_start()
        told.wait(part.timeout)
        if self._answer is None or self._answer.is_failure:
            reason = self._answer or "it does not answer"
            self.close()
            raise SinkError(f"the broker at {part.host}:{part.port} refuses: {reason}")

    def send(self, messages: Sequence[Message]) -> int:
        """All at once, acknowledged one by one; those up to the first that was not acknowledged have arrived.

        After that it sends nothing more: the client still holds what was not acknowledged, and would mix it in.
        """
        if self._broken:
            raise SinkError(f"the broker at {self._part.host}:{self._part.port} did not acknowledge")
        until = time.monotonic() + self._part.timeout
        sent = []
        for message in messages:
            fields = {"source": message.fields["source"], "outcome": message.outcome}
            topic = self._part.topic
            for name, value in fields.items():
                topic = topic.replace(f"{{{name}}}", value)
            sent.append(self._client.publish(topic, message.text.encode(), qos=1))
        for i, info in enumerate(sent):
            try:
                info.wait_for_publish(max(0.0, until - time.monotonic()))
                arrived = info.is_published()
            except (RuntimeError, ValueError):
                arrived = False
            if not arrived:
                self._broken = True
                if i == 0:
                    raise SinkError(f"the broker at {self._part.host}:{self._part.port} does not acknowledge")
                return i
        return len(messages)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


MQTT = SinkKind(MqttSink, Mqtt)
