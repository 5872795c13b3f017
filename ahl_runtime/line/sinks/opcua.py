"""An OPC UA server whose variables hold the newest outcome; clients subscribe to them.

Under Objects/ahl: Number (Int64, written last), Id, Outcome, Source, Frame, Decided (String), Score (Double, NaN
for a fault) and Message (String: the whole message as JSON).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from ahl_runtime.core.errors import SinkError
from ahl_runtime.line.sinks.kinds import SinkKind
from ahl_runtime.line.sinks.settings import SinkSettings
from ahl_runtime.line.store.journal import Message

NAMESPACE = "urn:ahl:line"


class OpcuaSink(SinkSettings):
    """The line's own OPC UA server, without authentication. `host`: loopback by default."""

    kind: Literal["opcua"]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 4840


class Opcua:
    """The constructor starts the server; SinkError. A message is delivered when the variables are written."""

    def __init__(self, settings: OpcuaSink) -> None:
        try:
            from asyncua import ua
            from asyncua.sync import Server
        except ImportError as error:
            raise SinkError("OPC UA needs the extra [opcua]: pip install 'ahl[opcua]'") from error
        self._ua: Any = ua
        self._server: Any = Server()
        try:
            self._server.set_endpoint(f"opc.tcp://{settings.host}:{settings.port}/ahl/")
            self._server.set_server_name("ahl-runtime")
            self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
            space = self._server.register_namespace(NAMESPACE)
            folder = self._server.nodes.objects.add_object(space, "ahl")
            kinds: dict[str, tuple[object, Any]] = {
                "Score": (math.nan, ua.VariantType.Double),
                "Number": (0, ua.VariantType.Int64),
            }
            for name in ("Id", "Outcome", "Source", "Frame", "Decided", "Message"):
                kinds[name] = ("", ua.VariantType.String)
            self._variables = {name: folder.add_variable(space, name, *kind) for name, kind in kinds.items()}
            self._server.start()
        except Exception as error:  # asyncua raises the errors of all its layers
            self.close()
            raise SinkError(f"OPC UA cannot listen on {settings.host}:{settings.port} ({error})") from error

    def send(self, messages: Sequence[Message]) -> int:
        """Write one message after another; subscribers with a queue receive each one."""
        for message in messages:
            fields = message.fields
            score = fields.get("score")
            self._write("Id", message.id)
            self._write("Outcome", message.outcome)
            self._write("Source", fields["source"])
            self._write("Frame", fields["frame"])
            self._write("Decided", fields.get("decided") or fields["happened"])
            self._write("Score", math.nan if score is None else float(score))
            self._write("Message", message.text)
            self._write("Number", message.number)
        return len(messages)

    def _write(self, name: str, value: object) -> None:
        kinds = {"Score": self._ua.VariantType.Double, "Number": self._ua.VariantType.Int64}
        self._variables[name].write_value(value, kinds.get(name, self._ua.VariantType.String))

    def close(self) -> None:
        """Stop listening."""
        self._server.stop()


OPCUA = SinkKind(OpcuaSink, Opcua)
