"""The settings of a line: its model, sources, sinks, pipeline and store."""

from __future__ import annotations

from collections import Counter
from typing import Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ahl_runtime.line.settings import ModelSettings, PipelineSettings, StoreSettings
from ahl_runtime.line.sinks.open import AnySink
from ahl_runtime.line.sources.open import AnySource
from ahl_runtime.line.sources.push import PushSource
from ahl_runtime.line.sources.settings import SourceSettings

DEFAULT_SOURCE = "default"


class LineConfig(BaseSettings):
    """What a line is made of. `ahl_runtime.service.config.load` reads it from a file and the environment."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    model: ModelSettings
    source: tuple[AnySource, ...] = ()
    sink: tuple[AnySink, ...] = ()
    pipeline: PipelineSettings = PipelineSettings()
    store: StoreSettings = StoreSettings()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, parts in (("source", self.source), ("sink", self.sink)):
            twice = [name for name, count in Counter(p.name for p in parts).items() if count > 1]
            if twice:
                raise ValueError(f"two of [[{what}]] are called {twice[0]!r}: names are unique")
        return self

    @property
    def sources(self) -> tuple[SourceSettings, ...]:
        """Those of the file, and one for HTTP where the file has none for it."""
        names = {s.name for s in self.source}
        if any(isinstance(s, PushSource) for s in self.source) or DEFAULT_SOURCE in names:
            return self.source
        return (*self.source, PushSource(name=DEFAULT_SOURCE, kind="push"))
