"""JSON lines in a file. After a power cut, a partial last line is ended and its message is written again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ahl_runtime.core.errors import SinkError
from ahl_runtime.line.sinks.kinds import SinkKind
from ahl_runtime.line.sinks.settings import SinkSettings
from ahl_runtime.line.store.journal import Message


class JsonlSink(SinkSettings):
    """Append JSON lines to a file; other programs may rename the file at any time."""

    kind: Literal["jsonl"]
    path: Path


class Jsonl:
    """Opens the file for each delivery, so that it may be renamed between two deliveries."""

    def __init__(self, settings: JsonlSink) -> None:
        self._path = settings.path

    def send(self, messages: Sequence[Message]) -> int:
        """Write all messages to disk. SinkError; the file is then cut back to its old size if the disk allows."""
        text = b"".join(m.text.encode() + b"\n" for m in messages)
        try:
            with self._path.open("a+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        text = b"\n" + text
                try:
                    view = memoryview(text)
                    while view:
                        view = view[file.write(view) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise SinkError(
                f"{self._path}: cannot be written ({error.strerror or error}): check the folder and its free space"
            ) from error
        return len(messages)

    def close(self) -> None:
        """Do nothing: no file stays open."""


JSONL = SinkKind(JsonlSink, Jsonl)
