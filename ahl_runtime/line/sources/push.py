"""Frames that come over HTTP: no thread of its own, the server hands them to the line."""

from __future__ import annotations

from typing import Literal

from ahl_runtime.line.settings import Policy, Seconds
from ahl_runtime.line.sources.kinds import SourceKind
from ahl_runtime.line.sources.settings import SourceSettings


class PushSource(SourceSettings):
    """Frames come over HTTP. `wait`: seconds until a frame is refused as busy."""

    kind: Literal["push"]
    policy: Policy = "block"
    wait: Seconds = 10.0


PUSH = SourceKind(PushSource, lambda part, store: None)
