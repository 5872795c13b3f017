"""The source that the settings ask for; its library is imported only then."""

from __future__ import annotations

from pathlib import Path

from ahl_runtime.line.sources.base import Source
from ahl_runtime.line.sources.folder import Folder
from ahl_runtime.line.sources.settings import FolderSource, GigeSource, PushSource, RingSource, SourceSettings


def open_source(part: SourceSettings, store: Path) -> Source | None:
    """None for frames that come over HTTP. SourceError where an extra is not installed."""
    if isinstance(part, PushSource):
        return None
    if isinstance(part, FolderSource):
        return Folder(part, store)
    if isinstance(part, GigeSource):
        from ahl_runtime.line.sources.gige import Gige

        return Gige(part)
    if isinstance(part, RingSource):
        from ahl_runtime.line.sources.ring import Ring

        return Ring(part)
    from ahl_runtime.line.sources.stream import Stream

    return Stream(part)
