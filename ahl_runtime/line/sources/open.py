"""The settings of a source of any kind, and the source that they ask for; its library is imported only then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ahl_runtime.core.errors import RuntimeFault, SourceError
from ahl_runtime.line.kinds import by_kind
from ahl_runtime.line.sources.base import Source
from ahl_runtime.line.sources.kinds import SOURCES
from ahl_runtime.line.sources.settings import SourceSettings

AnySource = Annotated[SourceSettings, by_kind(SOURCES)]


def open_source(part: SourceSettings, store: Path) -> Source | None:
    """None for frames that come over HTTP. SourceError where it cannot be opened, or an extra is not installed."""
    try:
        return SOURCES[part.kind].open(part, store)
    except RuntimeFault:
        raise
    except Exception as error:  # of someone else's module
        raise SourceError(f"source {part.name} cannot be opened: {type(error).__name__}: {error}") from error
