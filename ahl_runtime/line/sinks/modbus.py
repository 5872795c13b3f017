"""Modbus/TCP: the newest outcome in holding registers, and a coil that a fresh reject sets.

From `address` on: 0 and 1 the message's number modulo 2**32 (high word first), written last of all; 2 the outcome
(0 pass, 1 unsure, 2 reject, 3 fault); 3 the age in tenths of a second when it was written, 65535 for more; 4 and 5 the
score, an IEEE 754 float (high word first), NaN for a fault; 6 to 9 the id, 64 bits.
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
    """Holding registers of a Modbus device, from `address` on (docs/how-to/serve.md). `coil`: set for a fresh reject.

    `fresh`: seconds after which a reject no longer sets the coil.
    """

    kind: Literal["modbus"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    address: Annotated[int, Field(ge=0, le=65526)] = 0
    coil: Annotated[int, Field(ge=0, le=65535)] | None = None
    fresh: Seconds = 1.0


class Modbus:
    """Connected when this returns; SinkError."""

    def __init__(self, part: ModbusSink) -> None:
        try:
            from pymodbus import client
        except ImportError as error:
            raise SinkError("Modbus needs the extra [modbus]: pip install 'ahl[modbus]'") from error
        self._part = part
        opened: Any = client.ModbusTcpClient(part.host, port=part.port, timeout=part.timeout, retries=0)
        self._client = opened
        if not opened.connect():
            raise SinkError(f"the Modbus device at {part.host}:{part.port} cannot be reached")

    def send(self, messages: Sequence[Message]) -> int:
        """Each in turn: a device that reads more slowly than frames come sees the newest, and the number's gap."""
        for i, message in enumerate(messages):
            try:
                self._write(message)
            except Exception as error:  # pymodbus' errors have no common base that it keeps
                if i == 0:
                    raise SinkError(f"the Modbus device at {self._part.host}:{self._part.port}: {error}") from error
                return i
        return len(messages)

    def _write(self, message: Message) -> None:
        part, seconds = self._part, age(message)
        words = registers(message, seconds)
        self._check(self._client.write_registers(part.address + 2, words[2:], device_id=part.unit))
        if part.coil is not None and message.outcome == "reject" and seconds <= part.fresh:
            self._check(self._client.write_coil(part.coil, True, device_id=part.unit))
        self._check(self._client.write_registers(part.address, words[:2], device_id=part.unit))

    @staticmethod
    def _check(answer: Any) -> None:
        if answer.isError():
            raise SinkError(f"it refuses: {answer}")

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def age(message: Message) -> float:
    """Seconds since the decision, by the device's clock; infinite where the clock went back."""
    then = datetime.fromisoformat(message.fields.get("decided") or message.fields["happened"])
    seconds = (datetime.now(UTC) - then).total_seconds()
    return seconds if seconds >= 0 else math.inf


def registers(message: Message, seconds: float) -> list[int]:
    """The ten words of a message, each in [0, 65535]."""
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
