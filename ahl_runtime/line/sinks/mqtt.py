"""MQTT with quality of service 1: a message is delivered when the broker acknowledges it."""

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
    """An MQTT broker. `topic`: may hold {source} and {outcome}. `authority`: PEM file of the CA for `tls`."""

    kind: Literal["mqtt"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    topic: str = "ahl/{source}"
    user: str | None = None
    password_file: Path | None = None
    tls: bool = False
    authority: Path | None = None


class Mqtt:
    """The constructor connects to the broker; SinkError. The outbox opens a new sink after a failure."""

    def __init__(self, settings: MqttSink) -> None:
        try:
            from paho.mqtt import client, enums
        except ImportError as error:
            raise SinkError("MQTT needs the extra [mqtt]: pip install 'ahl[mqtt]'") from error
        self._settings = settings
        self._client: Any = client.Client(enums.CallbackAPIVersion.VERSION2)
        if settings.user is not None:
            password = read_secret(settings.password_file) if settings.password_file else None
            self._client.username_pw_set(settings.user, password)
        if settings.tls:
            self._client.tls_set_context(ssl.create_default_context(cafile=settings.authority))
        answered = threading.Event()
        self._answer: Any = None
        self._broken = False

        def connected(_: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
            self._answer = reason
            answered.set()

        self._client.on_connect = connected
        self._client.connect_timeout = settings.timeout
        try:
            self._client.connect(settings.host, settings.port, keepalive=15)
        except OSError as error:
            raise SinkError(f"the broker at {settings.host}:{settings.port} cannot be reached ({error})") from error
        self._client.loop_start()
        answered.wait(settings.timeout)
        if self._answer is None or self._answer.is_failure:
            reason = self._answer or "no answer"
            self.close()
            raise SinkError(f"the broker at {settings.host}:{settings.port} refuses the connection: {reason}")

    def send(self, messages: Sequence[Message]) -> int:
        """Publish all messages, then wait for each acknowledgement; returns the number before the first one missing.

        After a missing one the sink sends nothing more: the client still holds old messages and would mix them in.
        """
        if self._broken:
            raise SinkError(f"the broker at {self._settings.host}:{self._settings.port} did not acknowledge")
        until = time.monotonic() + self._settings.timeout
        sent = []
        for message in messages:
            fields = {"source": message.fields["source"], "outcome": message.outcome}
            topic = self._settings.topic
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
                    raise SinkError(f"the broker at {self._settings.host}:{self._settings.port} does not acknowledge")
                return i
        return len(messages)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


MQTT = SinkKind(MqttSink, Mqtt)
