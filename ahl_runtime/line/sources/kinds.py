"""The registry of source kinds: those of ahl and of plug-ins. The module of a kind is imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahl_runtime.core.errors import ConfigError
from ahl_runtime.core.plugins import Registry

if TYPE_CHECKING:
    from ahl_runtime.line.sources.base import Source
    from ahl_runtime.line.sources.settings import SourceSettings


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    `settings`: its settings model. `open`: opens a source with its settings and the path of the line's store;
    SourceError; returns None if frames come over HTTP. `place`: the setting that `--source KIND:PLACE` sets; None if
    the kind needs more settings.
    """

    settings: type[SourceSettings]
    open: Callable[[Any, Path], Source | None]
    place: str | None = None

    def __post_init__(self) -> None:
        from ahl_runtime.line.kinds import check_model

        check_model(self.settings)


SOURCES: Registry[SourceKind] = Registry(
    "ahl.sources",
    {
        "folder": "ahl_runtime.line.sources.folder:FOLDER",
        "video": "ahl_runtime.line.sources.stream:VIDEO",
        "camera": "ahl_runtime.line.sources.stream:CAMERA",
        "rtsp": "ahl_runtime.line.sources.stream:RTSP",
        "mjpeg": "ahl_runtime.line.sources.stream:MJPEG",
        "gige": "ahl_runtime.line.sources.cameras.gige:GIGE",
        "ring": "ahl_runtime.line.sources.ring:RING",
        "push": "ahl_runtime.line.sources.push:PUSH",
    },
    "an ahl_runtime.line.sources.kinds.SourceKind",
    lambda value: isinstance(value, SourceKind),
    ConfigError,
)
_PLACES = "folder:PATH, video:PATH, camera:DEVICE, rtsp:URL, mjpeg:URL, gige:CAMERA, ring:PATH"


def places() -> str:
    """The forms of `--source` as text for users, with the kinds of plug-ins."""
    return ", ".join((_PLACES, *(f"{name}:PLACE" for name in SOURCES.added)))


def placed(text: str, number: int) -> dict[str, Any]:
    """The settings of a source KIND:PLACE; `number` makes its name unique. ConfigError."""
    kind, _, place = text.partition(":")
    if kind not in SOURCES or not place:
        raise ConfigError(f"--source {text!r}: expected one of {places()}")
    key = SOURCES[kind].place
    if key is None:
        raise ConfigError(f"--source {text!r}: a source of the kind {kind} needs a settings file, see --config")
    where = text if kind == "rtsp" and place.startswith("//") else place
    return {"name": f"{kind}{number}", "kind": kind, key: where}
