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
from ahl_runtime.line.secret import read_secret
from ahl_runtime.line.settings import Policy
from ahl_runtime.line.sources.base import Lost, Report, Stopped
from ahl_runtime.line.sources.kinds import SourceKind
from ahl_runtime.line.sources.live import CapturedFrame, Live
from ahl_runtime.line.sources.settings import StreamSettings


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


class UrlSource(StreamSettings):
    """`url_file`: holds the address where it carries a password."""

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


Section = VideoSource | CameraSource | RtspSource | MjpegSource


class Stream(Live):
    """One camera, stream or file. SourceError where the extra is not installed."""

    def __init__(self, part: Section) -> None:
        super().__init__(part)
        try:
            import av
        except ImportError as error:
            raise SourceError(f"source {part.name} needs the extra [camera]: pip install 'ahl[camera]'") from error
        av.logging.set_level(av.logging.PANIC)  # what it raises is told; a second copy on stderr helps no one
        self._av: Any = av
        self._part = part

    def _captured(self, report: Report, stopped: Stopped, lost: Lost) -> Generator[CapturedFrame, None, None]:
        yield from self._once(stopped)
        while isinstance(self._part, VideoSource) and self._part.loop and not stopped(0.0):
            yield from self._once(stopped)

    def _ended(self) -> str:
        part = self._part
        return f"{self._count} frames of {part.path}" if isinstance(part, VideoSource) else ""

    def _once(self, stopped: Stopped) -> Iterator[CapturedFrame]:
        part = self._part
        start = time.monotonic()
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # a frame comes out as soon as it is in
            if not (isinstance(part, RtspSource) and stream.codec_context.name == "mjpeg"):
                # A damaged frame is told, not patched up. Motion JPEG over RTP comes whole or not at all, and with a
                # header that FFmpeg makes and then finds fault with.
                stream.codec_context.options = {"err_detect": "explode"}
            for frame, at in self._frames(container, stream):
                if isinstance(part, VideoSource) and part.realtime and at is not None:
                    stopped(max(0.0, start + at - time.monotonic()))
                yield CapturedFrame(partial(_pixels, frame), datetime.now(UTC))

    def _open(self) -> Any:
        part, options, form = self._part, {}, None
        match part:
            case VideoSource():
                where = str(part.path)
                if not part.path.is_file():
                    raise SourceError(f"{part.path}: no such file")
            case CameraSource():
                where, form = part.device, "v4l2"
                options = {"video_size": part.size} if part.size else {}
                if part.fps:
                    options["framerate"] = str(part.fps)
            case RtspSource():
                where = self._url("rtsp://", "rtsps://")
                options = {"rtsp_transport": "udp" if part.udp else "tcp"}
            case MjpegSource():
                where = self._url("http://", "https://")
        return self._av.open(where, format=form, options=options, timeout=(part.stall, part.stall))

    def _url(self, *schemes: str) -> str:
        part = self._part
        url = part.url if isinstance(part, RtspSource | MjpegSource) else None
        if isinstance(part, RtspSource | MjpegSource) and part.url_file is not None:
            url = read_secret(part.url_file)
        if url is None or not url.startswith(schemes):
            raise SourceError(f"source {part.name}: its address begins with none of {', '.join(schemes)}")
        return url

    def _frames(self, container: Any, stream: Any) -> Iterator[tuple[Any, float | None]]:
        """Decoded frames, or None for one that cannot be, and seconds since the beginning, where the stream says.

        What cannot be decoded before the first frame belongs to one from before the connection; SourceError if that
        goes on for `stall` seconds.
        """
        begun, since = False, time.monotonic()
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except self._av.error.InvalidDataError:
                if begun:
                    yield None, None
                elif time.monotonic() - since > self._part.stall:
                    raise SourceError(f"for {self._part.stall:g} s nothing came that can be decoded") from None
                continue
            for frame in decoded:
                begun = True
                yield frame, frame.time

    def _hidden(self, reason: str) -> str:
        """Without an address that may hold a password."""
        if isinstance(self._part, RtspSource | MjpegSource) and self._part.url_file is not None:
            return reason.replace(read_secret(self._part.url_file), "the address")
        return reason


def _pixels(frame: Any) -> NDArray[np.uint8]:
    if frame is None or frame.is_corrupt:
        raise ImageError("the frame is damaged")
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return image


VIDEO = SourceKind(VideoSource, lambda part, store: Stream(part), "path")
CAMERA = SourceKind(CameraSource, lambda part, store: Stream(part), "device")
RTSP = SourceKind(RtspSource, lambda part, store: Stream(part), "url")
MJPEG = SourceKind(MjpegSource, lambda part, store: Stream(part), "url")
