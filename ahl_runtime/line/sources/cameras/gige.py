"""GigE Vision cameras through Aravis, with pixel format, region, trigger and GenICam features."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ahl_runtime.core.errors import Busy, ImageError, SourceError
from ahl_runtime.line.sources.base import Lost, Report, Stopped
from ahl_runtime.line.sources.cameras.aravis import Buffer, Camera
from ahl_runtime.line.sources.kinds import SourceKind
from ahl_runtime.line.sources.live import CapturedFrame, Live
from ahl_runtime.line.sources.settings import StreamSettings

_LOOK = 0.2  # seconds between checks for a stop
# Codes of the Pixel Format Naming Convention: name, bytes per pixel, and FFmpeg's name if FFmpeg converts.
FORMATS: dict[int, tuple[str, int, str | None]] = {
    0x01080001: ("Mono8", 1, None),
    0x01080008: ("BayerGR8", 1, "bayer_grbg8"),
    0x01080009: ("BayerRG8", 1, "bayer_rggb8"),
    0x0108000A: ("BayerGB8", 1, "bayer_gbrg8"),
    0x0108000B: ("BayerBG8", 1, "bayer_bggr8"),
    0x02180014: ("RGB8", 3, None),
    0x02180015: ("BGR8", 3, None),
}


GenicamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]
GenicamValue = bool | int | float | Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:+-]{1,200}$")]


class GigeSource(StreamSettings):
    """A GigE Vision camera. `camera`: its address or its name, as listed by `arv-tool-0.8`.

    `trigger`: the GenICam TriggerSource, such as Line1 or Software; None: the camera runs freely. `features`: other
    GenICam features by name. `roi` is set in the camera.
    """

    kind: Literal["gige"]
    camera: Annotated[str, Field(pattern=r"^[^\s\x00]{1,200}$")]
    pixel_format: GenicamName | None = None
    trigger: GenicamName | None = None
    features: dict[GenicamName, GenicamValue] = Field(default_factory=dict)


class Gige(Live):
    """One camera, reopened after each failure. The camera crops: it sends only the region."""

    crops = False
    _settings: GigeSource

    def __init__(self, settings: GigeSource) -> None:
        super().__init__(settings)
        self._camera: Camera | None = None
        self._using = threading.Lock()

    def trigger(self) -> None:
        """Trigger one frame, from any thread. SourceError: no software trigger. Busy: the camera is disconnected."""
        if self._settings.trigger != "Software":
            raise SourceError(f"source {self._settings.name} has no software trigger: set trigger = 'Software'")
        with self._using:
            try:
                if self._camera is not None:
                    self._camera.trigger()
                    return
                reason = "the camera is not open yet"
            except SourceError as error:
                reason = str(error)
        raise Busy(f"the camera of {self._settings.name} cannot be triggered: {reason}")

    def _captured(self, report: Report, stopped: Stopped, lost: Lost) -> Generator[CapturedFrame, None, None]:
        with Camera(self._settings.camera) as camera:
            self._prepare(camera)
            camera.start()
            with self._using:
                self._camera = camera
            if self._settings.trigger is not None:
                report("live", f"open, waiting for trigger {self._settings.trigger}")
            try:
                yield from self._received(camera, stopped, lost)
            finally:
                with self._using:
                    self._camera = None

    def _prepare(self, camera: Camera) -> None:
        settings = self._settings
        if settings.pixel_format is not None:
            camera.set_pixel_format(settings.pixel_format)
        if (roi := settings.roi) is not None:
            asked = (roi.x, roi.y, roi.width, roi.height)
            way_out = "set roi within the sensor, in the camera's step size"
            try:
                made = camera.set_region(*asked)
            except SourceError as error:
                raise SourceError(f"region {_region_text(*asked)}: {error}: {way_out}") from error
            if made != asked:
                raise SourceError(f"region {_region_text(*asked)}: the camera set {_region_text(*made)}: {way_out}")
        camera.set_trigger(settings.trigger)
        for name, value in settings.features.items():  # set last, so that they override the settings above
            camera.set_feature(name, str(value).lower() if isinstance(value, bool) else str(value))

    def _received(self, camera: Camera, stopped: Stopped, lost: Lost) -> Generator[CapturedFrame, None, None]:
        missed, since = 0, time.monotonic()
        while not stopped(0.0):
            buffer = camera.next(_LOOK)
            if (now := camera.underruns()) > missed:
                lost(now - missed)
                missed = now
            if buffer is not None:
                captured = datetime.fromtimestamp(buffer.system_ns / 1e9, UTC)
                yield CapturedFrame(partial(rgb, buffer), captured)
                since = time.monotonic()
            elif time.monotonic() - since > self._settings.stall:
                if self._settings.trigger is None:
                    raise SourceError(f"no frame for {self._settings.stall:g} s")
                with self._using:
                    camera.region()  # a long wait for a trigger is normal: check the connection
                since = time.monotonic()


def _region_text(x: int, y: int, width: int, height: int) -> str:
    return f"{width}x{height} at {x}, {y}"


def rgb(buffer: Buffer) -> NDArray[np.uint8]:
    """The pixels of a frame, uint8 [H, W, 3]. ImageError: the frame is damaged. SourceError: unknown pixel format."""
    if buffer.damage:
        raise ImageError(f"the frame is damaged: {buffer.damage}")
    if buffer.format not in FORMATS:
        raise SourceError(
            f"pixel format 0x{buffer.format:08x} is not supported: set pixel_format to one of "
            + ", ".join(name for name, _, _ in FORMATS.values())
        )
    name, channels, convert = FORMATS[buffer.format]
    data, wanted = buffer.data(), buffer.height * buffer.width * channels
    if len(data) < wanted or not wanted:
        raise ImageError(f"the frame is damaged: {len(data)} bytes for {buffer.width}x{buffer.height} of {name}")
    image = np.frombuffer(data, np.uint8, wanted).reshape(buffer.height, buffer.width, channels)
    if convert is not None:
        return _demosaicked(image[..., 0], convert, name)
    if name == "Mono8":
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[..., ::-1]) if name == "BGR8" else image


def _demosaicked(image: NDArray[np.uint8], convert: str, name: str) -> NDArray[np.uint8]:
    if image.shape[0] % 2 or image.shape[1] % 2:
        raise SourceError(f"{name} of {image.shape[1]}x{image.shape[0]}: set a roi with even sides")
    try:
        import av
    except ImportError as error:
        raise SourceError(f"{name} needs the extra [camera]: pip install 'ahl[camera]', or set Mono8") from error
    made = av.VideoFrame.from_ndarray(image, format=convert).to_ndarray(format="rgb24")
    return made.astype(np.uint8, copy=False)


GIGE = SourceKind(GigeSource, lambda settings, store: Gige(settings), "camera")
