"""Open a source from its settings; the library of its kind is imported only then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ahl_runtime.core.errors import RuntimeFault, SourceError
from ahl_runtime.line.kinds import by_kind
from ahl_runtime.line.sources.base import Source
from ahl_runtime.line.sources.kinds import SOURCES
from ahl_runtime.line.sources.settings import SourceSettings

AnySource = Annotated[SourceSettings, by_kind(SOURCES)]


def open_source(settings: SourceSettings, store: Path) -> Source | None:
    """Open a source; None for a push source. SourceError if it cannot be opened, or an extra is not installed."""
    try:
        return SOURCES[settings.kind].open(settings, store)
    except RuntimeFault:
        raise
    except Exception as error:  # a plug-in may raise anything
        raise SourceError(f"source {settings.name} cannot be opened: {type(error).__name__}: {error}") from error
