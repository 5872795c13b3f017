"""Frames over HTTP. The source has no thread: the HTTP server gives the frames to the line."""

from __future__ import annotations

from typing import Literal

from ahl_runtime.line.settings import Policy, Seconds
from ahl_runtime.line.sources.kinds import SourceKind
from ahl_runtime.line.sources.settings import SourceSettings


class PushSource(SourceSettings):
    """Frames over HTTP. `wait`: seconds to wait for a decision before the request fails as busy."""

    kind: Literal["push"]
    policy: Policy = "block"
    wait: Seconds = 10.0


PUSH = SourceKind(PushSource, lambda settings, store: None)
