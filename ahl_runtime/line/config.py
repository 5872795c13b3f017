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
    """The settings of a line. `ahl_runtime.service.config.load` reads them from a file and the environment."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    model: ModelSettings
    source: tuple[AnySource, ...] = ()
    sink: tuple[AnySink, ...] = ()
    pipeline: PipelineSettings = PipelineSettings()
    store: StoreSettings = StoreSettings()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for table, sections in (("source", self.source), ("sink", self.sink)):
            twice = [name for name, count in Counter(s.name for s in sections).items() if count > 1]
            if twice:
                raise ValueError(f"two [[{table}]] have the name {twice[0]!r}: give each its own name")
        return self

    @property
    def sources(self) -> tuple[SourceSettings, ...]:
        """The sources of the file, and a push source for HTTP if the file has none."""
        names = {s.name for s in self.source}
        if any(isinstance(s, PushSource) for s in self.source) or DEFAULT_SOURCE in names:
            return self.source
        return (*self.source, PushSource(name=DEFAULT_SOURCE, kind="push"))
