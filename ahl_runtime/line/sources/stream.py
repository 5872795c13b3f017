"""Cameras, streams and video files through FFmpeg (PyAV)."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ahl_runtime.core.errors import ImageError, SourceError
from ahl_runtime.core.text import without_password
from ahl_runtime.line.secret import read_secret
from ahl_runtime.line.settings import Policy
from ahl_runtime.line.sources.base import Lost, Report, Stopped
from ahl_runtime.line.sources.kinds import SourceKind
from ahl_runtime.line.sources.live import CapturedFrame, Live
from ahl_runtime.line.sources.settings import StreamSettings


class VideoSource(StreamSettings):
    """A video file, decoded as fast as the line scores, or at its own frame rate (`realtime`). `loop`: repeat it."""

    kind: Literal["video"]
    policy: Policy = "block"
    path: Path
    realtime: bool = False
    loop: bool = False


class CameraSource(StreamSettings):
    """A V4L2 camera. `size`: such as 1280x720; None: the camera's default."""

    kind: Literal["camera"]
    device: str = "/dev/video0"
    size: Annotated[str, Field(pattern=r"^\d{1,5}x\d{1,5}$")] | None = None
    fps: Annotated[int, Field(ge=1, le=1000)] | None = None


class UrlSource(StreamSettings):
    """`url_file`: a file that holds the address; use it if the address contains a password."""

    url: str | None = None
    url_file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("give url or url_file")
        return self


class RtspSource(UrlSource):
    """RTSP, over TCP unless `udp`."""

    kind: Literal["rtsp"]
    udp: bool = False


class MjpegSource(UrlSource):
    """Motion JPEG over HTTP."""

    kind: Literal["mjpeg"]


AnyStreamSource = VideoSource | CameraSource | RtspSource | MjpegSource


class Stream(Live):
    """One camera, stream or video file. SourceError if the extra is not installed."""

    _settings: AnyStreamSource

    def __init__(self, settings: AnyStreamSource) -> None:
        super().__init__(settings)
        try:
            import av
        except ImportError as error:
            raise SourceError(f"source {settings.name} needs the extra [camera]: pip install 'ahl[camera]'") from error
        av.logging.set_level(av.logging.PANIC)  # its errors are raised; do not print them on stderr too
        self._av: Any = av
        self._address = ""  # as last read from `url_file`

    def _captured(self, report: Report, stopped: Stopped, lost: Lost) -> Generator[CapturedFrame, None, None]:
        yield from self._once(stopped)
        while isinstance(self._settings, VideoSource) and self._settings.loop and not stopped(0.0):
            yield from self._once(stopped)

    def _ended(self) -> str:
        settings = self._settings
        return f"{self._count} frames of {settings.path}" if isinstance(settings, VideoSource) else ""

    def _once(self, stopped: Stopped) -> Iterator[CapturedFrame]:
        settings = self._settings
        start = time.monotonic()
        with self._open() as container:
            if container.format.name == "tty" or not container.streams.video:  # FFmpeg draws any text as a film
                raise SourceError(f"source {settings.name}: no video: give a video file or a stream of one")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # a decoded frame comes out without delay
            if not (isinstance(settings, RtspSource) and stream.codec_context.name == "mjpeg"):
                # Report a damaged frame; do not conceal the damage. Motion JPEG over RTP is exempt: its frames come
                # whole or not at all, and FFmpeg rejects the header that FFmpeg itself writes.
                stream.codec_context.options = {"err_detect": "explode"}
            for frame, at in self._frames(container, stream):
                if isinstance(settings, VideoSource) and settings.realtime and at is not None:
                    stopped(max(0.0, start + at - time.monotonic()))
                yield CapturedFrame(partial(_pixels, frame), datetime.now(UTC))

    def _open(self) -> Any:
        settings, options, form = self._settings, {}, None
        match settings:
            case VideoSource():
                where = str(settings.path)
                if not settings.path.is_file():
                    raise SourceError(f"{settings.path}: no such file")
            case CameraSource():
                where, form = settings.device, "v4l2"
                options = {"video_size": settings.size} if settings.size else {}
                if settings.fps:
                    options["framerate"] = str(settings.fps)
            case RtspSource():
                where = self._url("rtsp://", "rtsps://")
                options = {"rtsp_transport": "udp" if settings.udp else "tcp"}
            case MjpegSource():
                where = self._url("http://", "https://")
        return self._av.open(where, format=form, options=options, timeout=(settings.stall, settings.stall))

    def _url(self, *schemes: str) -> str:
        settings = self._settings
        url = settings.url if isinstance(settings, RtspSource | MjpegSource) else None
        if isinstance(settings, RtspSource | MjpegSource) and settings.url_file is not None:
            url = self._address = read_secret(settings.url_file)
        if url is None or not url.startswith(schemes):
            raise SourceError(f"source {settings.name}: the address must begin with {' or '.join(schemes)}")
        return url

    def _frames(self, container: Any, stream: Any) -> Iterator[tuple[Any, float | None]]:
        """Decoded frames, None for a damaged one, and their seconds since the start of the stream, None if unknown.

        Undecodable packets before the first frame belong to frames from before the connection and are skipped.
        SourceError if no frame can be decoded for `stall` seconds.
        """
        begun, since = False, time.monotonic()
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except self._av.error.InvalidDataError:
                if begun:
                    yield None, None
                elif time.monotonic() - since > self._settings.stall:
                    raise SourceError(f"no frame could be decoded for {self._settings.stall:g} s") from None
                continue
            for frame in decoded:
                begun = True
                yield frame, frame.time

    def _hidden(self, reason: str) -> str:
        """The reason without an address from a file, and without the user and password of any other."""
        if self._address:
            reason = reason.replace(self._address, "the address")
        return without_password(reason)


def _pixels(frame: Any) -> NDArray[np.uint8]:
    if frame is None or frame.is_corrupt:
        raise ImageError("the frame is damaged")
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return image


VIDEO = SourceKind(VideoSource, lambda settings, store: Stream(settings), "path")
CAMERA = SourceKind(CameraSource, lambda settings, store: Stream(settings), "device")
RTSP = SourceKind(RtspSource, lambda settings, store: Stream(settings), "url")
MJPEG = SourceKind(MjpegSource, lambda settings, store: Stream(settings), "url")
