"""The settings of each kind of sink."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Union, get_args

from pydantic import Field

from ahl_runtime.line.settings import Name, Outcome, Seconds, Section

_ALL: tuple[Outcome, ...] = get_args(Outcome)


class _Sink(Section):
    """`only`: the outcomes that are sent. `timeout`: seconds for a message; `retry`, `retry_most`: between attempts."""

    name: Name
    only: tuple[Outcome, ...] = _ALL
    timeout: Seconds = 5.0
    retry: Seconds = 0.5
    retry_most: Seconds = 30.0


class JsonlSink(_Sink):
    """JSON lines, appended to a file that may be renamed at any time."""

    kind: Literal["jsonl"]
    path: Path


class WebhookSink(_Sink):
    """POST, one message a request. `token_file`: sent as a bearer token."""

    kind: Literal["webhook"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    token_file: Path | None = None


class MqttSink(_Sink):
    """QoS 1. `topic`: {source} and {outcome} are filled in."""

    kind: Literal["mqtt"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    topic: str = "ahl/{source}"
    user: str | None = None
    password_file: Path | None = None
    tls: bool = False
    authority: Path | None = None


class ModbusSink(_Sink):
    """Holding registers of a Modbus/TCP device, from `address` on (docs/serve.md). `coil`: set for a fresh reject.

    `fresh`: seconds after which a reject no longer sets the coil.
    """

    kind: Literal["modbus"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    address: Annotated[int, Field(ge=0, le=65526)] = 0
    coil: Annotated[int, Field(ge=0, le=65535)] | None = None
    fresh: Seconds = 1.0


class OpcuaSink(_Sink):
    """An OPC UA server of the line's own; on loopback unless told otherwise, without authentication."""

    kind: Literal["opcua"]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 4840


SinkSettings = Annotated[
    Union[JsonlSink, WebhookSink, MqttSink, ModbusSink, OpcuaSink],  # noqa: UP007
    Field(discriminator="kind"),
]
