"""Modbus/TCP: write the newest outcome to holding registers, and set a coil for a fresh reject.

Registers from `address` on: 0 and 1 hold the message's number modulo 2**32 (high word first), written last; 2 the
outcome (0 pass, 1 unsure, 2 reject, 3 fault); 3 the age in tenths of a second at the time of writing, at most 65535;
4 and 5 the score, an IEEE 754 float (high word first), NaN for a fault; 6 to 9 the id, 64 bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from ahl_runtime.core.errors import SinkError
from ahl_runtime.line.settings import Seconds
from ahl_runtime.line.sinks.kinds import SinkKind
from ahl_runtime.line.sinks.settings import SinkSettings
from ahl_runtime.line.store.journal import Message

_CODES = {"pass": 0, "unsure": 1, "reject": 2, "fault": 3}


class ModbusSink(SinkSettings):
    """A Modbus device. `address`: its first holding register (docs/how-to/serve.md). `coil`: set for a fresh reject.

    `fresh`: a reject older than this, in seconds, does not set the coil.
    """

    kind: Literal["modbus"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    address: Annotated[int, Field(ge=0, le=65526)] = 0
    coil: Annotated[int, Field(ge=0, le=65535)] | None = None
    fresh: Seconds = 1.0


class Modbus:
    """The constructor connects to the device; SinkError."""

    def __init__(self, settings: ModbusSink) -> None:
        try:
            from pymodbus import client
        except ImportError as error:
            raise SinkError("Modbus needs the extra [modbus]: pip install 'ahl[modbus]'") from error
        self._settings = settings
        opened: Any = client.ModbusTcpClient(settings.host, port=settings.port, timeout=settings.timeout, retries=0)
        self._client = opened
        if not opened.connect():
            raise SinkError(f"the Modbus device at {settings.host}:{settings.port} cannot be reached")

    def send(self, messages: Sequence[Message]) -> int:
        """Write one message after another. A slow reader sees only the newest, and a gap in the numbers."""
        address = f"{self._settings.host}:{self._settings.port}"
        for i, message in enumerate(messages):
            try:
                self._write(message)
            except Exception as error:  # the errors of pymodbus have no common base class
                if i == 0:
                    raise SinkError(f"the Modbus device at {address}: {error}") from error
                return i
        return len(messages)

    def _write(self, message: Message) -> None:
        settings, seconds = self._settings, age(message)
        words = registers(message, seconds)
        self._check(self._client.write_registers(settings.address + 2, words[2:], device_id=settings.unit))
        if settings.coil is not None and message.outcome == "reject" and seconds <= settings.fresh:
            self._check(self._client.write_coil(settings.coil, True, device_id=settings.unit))
        self._check(self._client.write_registers(settings.address, words[:2], device_id=settings.unit))

    @staticmethod
    def _check(answer: Any) -> None:
        if answer.isError():
            raise SinkError(f"the device refuses the write: {answer}")

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def age(message: Message) -> float:
    """Seconds since the decision, by this computer's clock; infinite if the clock went back."""
    then = datetime.fromisoformat(message.fields.get("decided") or message.fields["happened"])
    seconds = (datetime.now(UTC) - then).total_seconds()
    return seconds if seconds >= 0 else math.inf


def registers(message: Message, seconds: float) -> list[int]:
    """The ten register values of a message, each in [0, 65535]. `seconds`: its age."""
    tenths = min(65535, int(10 * seconds)) if math.isfinite(seconds) else 65535
    score = message.fields.get("score")
    body = struct.pack(
        ">IHHfQ",
        message.number % 2**32,
        _CODES[message.outcome],
        tenths,
        math.nan if score is None else score,
        int(message.id, 16),
    )
    return list(struct.unpack(">10H", body))


MODBUS = SinkKind(ModbusSink, Modbus)
