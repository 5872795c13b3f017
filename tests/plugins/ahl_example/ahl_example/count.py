"""A sink that keeps a file with how many messages of each outcome came."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ahl_runtime.core.errors import SinkError
from ahl_runtime.core.files import write_whole
from ahl_runtime.line.sinks.kinds import SinkKind
from ahl_runtime.line.sinks.settings import SinkSettings
from ahl_runtime.line.store.journal import Message


class CountSettings(SinkSettings):
    """`path`: a JSON file, written anew for each delivery."""

    kind: Literal["count"]
    path: Path


class Count:
    """Counts from when it was opened."""

    def __init__(self, settings: CountSettings) -> None:
        self._path = settings.path
        self._counts: Counter[str] = Counter()

    def send(self, messages: Sequence[Message]) -> int:
        """All of them; SinkError if the file cannot be written."""
        counts = self._counts + Counter(message.outcome for message in messages)
        try:
            write_whole(self._path, [json.dumps(counts).encode()])
        except OSError as error:
            raise SinkError(f"{self._path} cannot be written ({error.strerror}): check the folder") from error
        self._counts = counts
        return len(messages)

    def close(self) -> None:
        """Nothing is held."""


COUNT = SinkKind(CountSettings, Count)
