"""The settings of a line, from a TOML file and the environment, checked together."""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ahl_runtime.errors import ConfigError
from ahl_runtime.server.settings import Settings as HttpSettings

PREFIX = "AHL_"
DEFAULT_SOURCE = "default"
_FILE = "_file"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Outcome = Literal["pass", "unsure", "reject", "fault"]
Policy = Literal["drop-oldest", "block"]
_ALL: tuple[Outcome, ...] = ("pass", "unsure", "reject", "fault")


class Part(BaseModel):
    """What it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPart(Part):
    """`engine`: the preferred one by default. `trust`: a public key's file; bundles of others are refused."""

    bundle: Path
    engine: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    trust: Path | None = None


class PipelinePart(Part):
    """`batch`: frames of one size scored together, at most; None for what suits the engine (`Model.batch`).

    `linger`: seconds to wait for more of them.
    """

    batch: Annotated[int, Field(ge=1, le=64)] | None = None
    linger: Annotated[float, Field(ge=0, le=1)] = 0.0


class Region(Part):
    """In pixels, from the upper left corner."""

    x: Annotated[int, Field(ge=0)]
    y: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


class _Source(Part):
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


class StreamPart(_Source):
    """`stall`: seconds without a frame until it is opened anew. `frozen`: equal frames in a row that alarm; 0: never.

    `retry`: seconds before the first attempt to reconnect, `retry_most` before later ones.
    """

    policy: Policy = "drop-oldest"
    stall: Seconds = 5.0
    frozen: Annotated[int, Field(ge=0)] = 50
    retry: Seconds = 0.5
    retry_most: Seconds = 30.0


class VideoSource(StreamPart):
    """A file, decoded once from its beginning to its end, as fast as it is scored, or in its own time (`realtime`)."""

    kind: Literal["video"]
    policy: Policy = "block"
    path: Path
    realtime: bool = False
    loop: bool = False


class CameraSource(StreamPart):
    """V4L2. `size`: such as 1280x720; the camera's own by default."""

    kind: Literal["camera"]
    device: str = "/dev/video0"
    size: Annotated[str, Field(pattern=r"^\d{1,5}x\d{1,5}$")] | None = None
    fps: Annotated[int, Field(ge=1, le=1000)] | None = None


class _UrlSource(StreamPart):
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


class GigeSource(StreamPart):
    """GigE Vision, through Aravis. `camera`: its address or its name, as `arv-tool-0.8` lists them.

    `trigger`: the GenICam TriggerSource, such as Line1 or Software; without one the camera runs freely. `features`: any
    others, by their names. `roi` is set in the camera.
    """

    kind: Literal["gige"]
    camera: Annotated[str, Field(pattern=r"^[^\s\x00]{1,200}$")]
    pixel_format: GenicamName | None = None
    trigger: GenicamName | None = None
    features: dict[GenicamName, GenicamValue] = {}


class RingSource(StreamPart):
    """Shared memory that a process of this computer writes (`ahl_runtime.ring`). `every`: seconds between looks."""

    kind: Literal["ring"]
    path: Path
    every: Seconds = 0.002


class PushSource(_Source):
    """Frames come over HTTP. `wait`: seconds until a frame is refused as busy."""

    kind: Literal["push"]
    policy: Policy = "block"
    wait: Seconds = 10.0


SourcePart = Annotated[
    Union[FolderSource, VideoSource, CameraSource, RtspSource, MjpegSource, GigeSource, RingSource, PushSource],  # noqa: UP007
    Field(discriminator="kind"),
]


class _Sink(Part):
    """`only`: the outcomes that are sent. `timeout`: seconds for a message; `retry`, `retry_most`: between attempts."""

    name: Name
    only: tuple[Outcome, ...] = _ALL
    timeout: Seconds = 5.0
    retry: Seconds = 0.5
    retry_most: Seconds = 30.0


class JsonlSink(_Sink):
    """JSON lines, appended to a file that may be renamed at any time."""

    kind: Literal["jsonl"]
    path: Path


class WebhookSink(_Sink):
    """POST, one message a request. `token_file`: sent as a bearer token."""

    kind: Literal["webhook"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    token_file: Path | None = None


class MqttSink(_Sink):
    """QoS 1. `topic`: {source} and {outcome} are filled in."""

    kind: Literal["mqtt"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    topic: str = "ahl/{source}"
    user: str | None = None
    password_file: Path | None = None
    tls: bool = False
    authority: Path | None = None


class ModbusSink(_Sink):
    """Holding registers of a Modbus/TCP device, from `address` on (docs/serve.md). `coil`: set for a fresh reject.

    `fresh`: seconds after which a reject no longer sets the coil.
    """

    kind: Literal["modbus"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    address: Annotated[int, Field(ge=0, le=65526)] = 0
    coil: Annotated[int, Field(ge=0, le=65535)] | None = None
    fresh: Seconds = 1.0


class OpcuaSink(_Sink):
    """An OPC UA server of the line's own; on loopback unless told otherwise, without authentication."""

    kind: Literal["opcua"]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 4840


SinkPart = Annotated[
    Union[JsonlSink, WebhookSink, MqttSink, ModbusSink, OpcuaSink],  # noqa: UP007
    Field(discriminator="kind"),
]


class StorePart(Part):
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


class LogPart(Part):
    """JSON lines on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class LineConfig(BaseSettings):
    """Everything that `ahl-runtime serve` is told. Flags win over the environment, and that over a file.

    `load` makes one.
    """

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    model: ModelPart
    source: tuple[SourcePart, ...] = ()
    sink: tuple[SinkPart, ...] = ()
    pipeline: PipelinePart = PipelinePart()
    store: StorePart = StorePart()
    http: HttpSettings = HttpSettings()
    log: LogPart = LogPart()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """In order of precedence. No .env is looked for."""
        given = init_settings()
        file = given.pop(_FILE, {})
        return (
            InitSettingsSource(settings_cls, given),
            env_settings,
            InitSettingsSource(settings_cls, file),
        )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, parts in (("source", self.source), ("sink", self.sink)):
            twice = [name for name, count in Counter(p.name for p in parts).items() if count > 1]
            if twice:
                raise ValueError(f"two of [[{what}]] are called {twice[0]!r}: names are unique")
        return self

    @property
    def sources(self) -> tuple[SourcePart, ...]:
        """Those of the file, and one for HTTP where the file has none for it."""
        names = {s.name for s in self.source}
        if any(isinstance(s, PushSource) for s in self.source) or DEFAULT_SOURCE in names:
            return self.source
        return (*self.source, PushSource(name=DEFAULT_SOURCE, kind="push"))


def load(path: Path | None, flags: Mapping[str, Any] | None = None) -> LineConfig:
    """The settings of a file, what `flags` put in their place, and the environment. ConfigError names every fault."""
    fields: dict[str, Any] = {}
    given: dict[str, Any] = dict(flags or {})
    where = str(path) if path else "the settings"
    if path is not None:
        try:
            with path.open("rb") as file:
                fields = tomllib.load(file)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from error
    given[_FILE] = fields
    try:
        return LineConfig(**given)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_said(e) for e in error.errors())) from error
    except Exception as error:  # the environment's values are parsed before they are checked
        raise ConfigError(f"{where}: {error}") from error


def _said(error: Any) -> str:
    """A fault of the settings, with its key, and the key that may have been meant."""
    model, shown = _at(error["loc"])
    if error["type"] == "extra_forbidden":
        known = list(model.model_fields) if model else []
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
        return f"{shown}: no such key" + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}")
    if error["type"] == "missing":
        return f"{shown}: missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{shown}: {message}" if shown else message


def _at(loc: tuple[int | str, ...]) -> tuple[type[BaseModel] | None, str]:
    """The model that a fault's last key belongs to, and where that key stands in the file."""
    model: type[BaseModel] | None = LineConfig
    shown: list[str] = []
    for i, part in enumerate(loc):
        if isinstance(part, int):
            shown[-1] += f"[{part + 1}]"
            continue
        tagged = i > 0 and isinstance(loc[i - 1], int)
        if tagged and loc[0] in ("source", "sink") and part in _KINDS[str(loc[0])]:
            model = _KINDS[str(loc[0])][part]
            continue
        shown.append(part)
        if i + 1 < len(loc) and model is not None and not isinstance(loc[i + 1], int):
            field = model.model_fields.get(part)
            found = [a for a in (get_args(field.annotation) or (field.annotation,)) if _is_model(a)] if field else []
            model = found[0] if found else None
    return model, ".".join(shown)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kinds(union: Any) -> dict[str, type[BaseModel]]:
    return {get_args(kind.model_fields["kind"].annotation)[0]: kind for kind in get_args(get_args(union)[0])}


_KINDS = {"source": _kinds(SourcePart), "sink": _kinds(SinkPart)}
