"""The settings of each kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, Union

from pydantic import Field, model_validator

from ahl_runtime.line.settings import Name, Policy, Seconds, Section


class Region(Section):
    """In pixels, from the upper left corner."""

    x: Annotated[int, Field(ge=0)]
    y: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


class _Source(Section):
    """`queue`: frames that may wait. `max_fps`: frames a second that are taken, those between are left out."""

    name: Name
    queue: Annotated[int, Field(ge=1, le=10_000)] = 4
    max_fps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    roi: Region | None = None


class FolderSource(_Source):
    """`every`: seconds between looks. `settle`: seconds for which a file must not have changed.

    `done`: what becomes of a file that was decided on; `move` needs `move_to`, on the same file system.
    """

    kind: Literal["folder"]
    policy: Policy = "block"
    path: Path
    every: Seconds = 0.2
    settle: Annotated[float, Field(ge=0, le=3600)] = 0.5
    done: Literal["keep", "delete", "move"] = "keep"
    move_to: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.done == "move") != (self.move_to is not None):
            raise ValueError("done = 'move' and move_to belong together: give both, or neither")
        if self.max_fps is not None:
            raise ValueError("max_fps would leave files undecided: a folder has none")
        return self


class StreamSettings(_Source):
    """`stall`: seconds without a frame until it is opened anew. `frozen`: equal frames in a row that alarm; 0: never.

    `retry`: seconds before the first attempt to reconnect, `retry_most` before later ones.
    """

    policy: Policy = "drop-oldest"
    stall: Seconds = 5.0
    frozen: Annotated[int, Field(ge=0)] = 50
    retry: Seconds = 0.5
    retry_most: Seconds = 30.0


class VideoSource(StreamSettings):
    """A file, decoded once from its beginning to its end, as fast as it is scored, or in its own time (`realtime`)."""

    kind: Literal["video"]
    policy: Policy = "block"
    path: Path
    realtime: bool = False
    loop: bool = False


class CameraSource(StreamSettings):
    """V4L2. `size`: such as 1280x720; the camera's own by default."""

    kind: Literal["camera"]
    device: str = "/dev/video0"
    size: Annotated[str, Field(pattern=r"^\d{1,5}x\d{1,5}$")] | None = None
    fps: Annotated[int, Field(ge=1, le=1000)] | None = None


class _UrlSource(StreamSettings):
    """`url_file`: holds the address where it carries a password."""

    url: str | None = None
    url_file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("give url or url_file")
        return self


class RtspSource(_UrlSource):
    """RTSP, over TCP unless `udp`."""

    kind: Literal["rtsp"]
    udp: bool = False


class MjpegSource(_UrlSource):
    """Motion JPEG over HTTP."""

    kind: Literal["mjpeg"]


GenicamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]
GenicamValue = bool | int | float | Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:+-]{1,200}$")]


class GigeSource(StreamSettings):
    """GigE Vision, through Aravis. `camera`: its address or its name, as `arv-tool-0.8` lists them.

    `trigger`: the GenICam TriggerSource, such as Line1 or Software; without one the camera runs freely. `features`: any
    others, by their names. `roi` is set in the camera.
    """

    kind: Literal["gige"]
    camera: Annotated[str, Field(pattern=r"^[^\s\x00]{1,200}$")]
    pixel_format: GenicamName | None = None
    trigger: GenicamName | None = None
    features: dict[GenicamName, GenicamValue] = Field(default_factory=dict)


class RingSource(StreamSettings):
    """Shared memory that a process of this computer writes (`ring_memory`). `every`: seconds between looks."""

    kind: Literal["ring"]
    path: Path
    every: Seconds = 0.002


class PushSource(_Source):
    """Frames come over HTTP. `wait`: seconds until a frame is refused as busy."""

    kind: Literal["push"]
    policy: Policy = "block"
    wait: Seconds = 10.0


SourceSettings = Annotated[
    Union[FolderSource, VideoSource, CameraSource, RtspSource, MjpegSource, GigeSource, RingSource, PushSource],  # noqa: UP007
    Field(discriminator="kind"),
]
