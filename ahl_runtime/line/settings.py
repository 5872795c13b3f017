"""The base of all settings of a line, and the settings of its model, pipeline, store and log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ahl_runtime.engines.base import MOST_THREADS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Outcome = Literal["pass", "unsure", "reject", "fault"]
Policy = Literal["drop-oldest", "block"]


class Section(BaseModel):
    """A frozen table of settings. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Section):
    """`engine`: None for the preferred one. `trust`: the file of a public key; every bundle must be signed with it.

    `side_by_side`: score pending frames in parallel, one core each; None: the engine's default (`single_and_parallel`).
    """

    bundle: Path
    engine: str | None = None
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    side_by_side: bool | None = None
    trust: Path | None = None


class PipelineSettings(Section):
    """`batch`: the most frames of one size in one call; None: the engine's default (`LoadedBundle.batch`).

    `linger`: seconds to wait for more frames to fill a batch.
    """

    batch: Annotated[int, Field(ge=1, le=64)] | None = None
    linger: Annotated[float, Field(ge=0, le=1)] = 0.0


class StoreSettings(Section):
    """`path`: the SQLite file; the folder `path`.images holds the kept images.

    `keep_rejects`: keep the images of rejects and unsure decisions. `keep_passes`: the share of other images to keep.
    `max_age`: days to keep images. `max_bytes`: bytes of all images. `decisions_age`: days to keep unmarked decisions.
    """

    path: Path = Path("line.sqlite")
    keep_rejects: bool = True
    keep_passes: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_age: Annotated[float, Field(gt=0)] = 30.0
    max_bytes: Annotated[int, Field(ge=0)] = 10_000_000_000
    decisions_age: Annotated[float, Field(gt=0)] = 365.0

    @property
    def images(self) -> Path:
        """The folder of kept images."""
        return self.path.with_name(f"{self.path.name}.images")


class LogSettings(Section):
    """`level`: the lowest level that is logged, as JSON lines on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
