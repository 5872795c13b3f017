"""What the parts of a line's settings have in common, and those that are neither a source nor a sink."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Outcome = Literal["pass", "unsure", "reject", "fault"]
Policy = Literal["drop-oldest", "block"]


class Section(BaseModel):
    """What it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Section):
    """`engine`: the preferred one by default. `trust`: a public key's file; bundles of others are refused.

    `side_by_side`: frames that wait are scored on a core each; None for what suits the engine (`engines.pair`).
    """

    bundle: Path
    engine: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    side_by_side: bool | None = None
    trust: Path | None = None


class PipelineSettings(Section):
    """`batch`: frames of one size scored together, at most; None for what suits the engine (`Model.batch`).

    `linger`: seconds to wait for more of them.
    """

    batch: Annotated[int, Field(ge=1, le=64)] | None = None
    linger: Annotated[float, Field(ge=0, le=1)] = 0.0


class StoreSettings(Section):
    """`path`: the SQLite file; kept images lie beside it, in `path`.images.

    `keep_rejects`: their images, and those of unsure decisions. `keep_passes`: the share of the others whose image is
    kept. `max_age`: days for images, `max_bytes` for all of them; `decisions_age`: days for decisions without a mark.
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
    """JSON lines on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
