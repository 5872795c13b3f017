"""Cameras, streams and video files through FFmpeg (PyAV): opened anew whenever they fail; a frozen one is noticed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.errors import ImageError, SourceError
from ahl_runtime.line.config import CameraSource, MjpegSource, RtspSource, VideoSource
from ahl_runtime.line.inbox import Ticket
from ahl_runtime.line.secret import read_secret
from ahl_runtime.line.sources.base import Give, Report, cropped
from ahl_runtime.types import Frame

log = logging.getLogger(__name__)
Part = VideoSource | CameraSource | RtspSource | MjpegSource


class Stream:
    """One camera, stream or file. SourceError where the extra is not installed."""

    def __init__(self, part: Part) -> None:
        try:
            import av
        except ImportError as error:
            raise SourceError(f"source {part.name} needs the extra [camera]: pip install 'ahl[camera]'") from error
        av.logging.set_level(av.logging.PANIC)  # what it raises is told; a second copy on stderr helps no one
        self._av: Any = av
        self._part = part
        self._count = 0
        self._last: NDArray[np.uint8] | None = None
        self._equal = 0
        self._next = float("-inf")

    def run(self, give: Give, report: Report, stopped: Callable[[float], bool]) -> None:
        """Until stopped, or the end of a file that is not looped."""
        pause = self._part.retry
        while not stopped(0.0):
            before = self._count
            try:
                self._read(give, report, stopped)
                if isinstance(self._part, VideoSource):
                    if self._part.loop and not stopped(0.0):
                        continue
                    report("ended", f"{self._count} frames of {self._part.path}")
                    return
                reason = "the stream ended"
            except SourceError as error:
                reason = str(error)
            except Exception as error:  # FFmpeg's errors, and what damaged streams make of it
                reason = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
            if stopped(0.0):
                return
            pause = self._part.retry if self._count > before else min(2 * pause, self._part.retry_most)
            report("frozen" if self._frozen else "gone", f"{self._hidden(reason)}; next attempt in {pause:g} s")
            log.warning("a source fails", extra={"source": self._part.name, "error": self._hidden(reason)})
            stopped(pause)

    def _read(self, give: Give, report: Report, stopped: Callable[[float], bool]) -> None:
        part = self._part
        start = time.monotonic()
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # a frame comes out as soon as it is in
            stream.codec_context.options = {"err_detect": "explode"}  # a damaged frame is told, not patched up
            for image, at in self._frames(container, stream):
                if stopped(0.0):
                    return
                if isinstance(part, VideoSource) and part.realtime and at is not None:
                    stopped(max(0.0, start + at - time.monotonic()))
                self._hand_on(image, give, report)

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

        What cannot be decoded before the first frame belongs to one from before the connection.
        """
        begun = False
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except self._av.error.InvalidDataError:
                if begun:
                    yield None, None
                continue
            for frame in decoded:
                begun = True
                yield frame, frame.time

    def _hand_on(self, frame: Any, give: Give, report: Report) -> None:
        part, now = self._part, time.monotonic()
        if part.max_fps is not None:
            if now < self._next:
                return
            self._next = max(self._next, now - 1 / part.max_fps) + 1 / part.max_fps
        self._count += 1
        name = str(self._count)
        if frame is None or frame.is_corrupt:
            give(Ticket(None, part.name, name, "the frame is damaged"))
            return
        image = frame.to_ndarray(format="rgb24")
        self._equal = self._equal + 1 if self._last is not None and np.array_equal(image, self._last) else 0
        self._last = image
        if self._frozen:
            raise SourceError(f"the same frame came {self._equal + 1} times: the camera is frozen")
        captured = datetime.now(UTC)
        try:
            ticket = Ticket(Frame(cropped(image, part.roi), name, part.name, captured), part.name, name)
        except ImageError as error:
            ticket = Ticket(None, part.name, name, str(error))
        if give(ticket):
            report("live", f"frame {self._count} of {image.shape[1]}x{image.shape[0]}")

    @property
    def _frozen(self) -> bool:
        return bool(self._part.frozen) and self._equal + 1 >= self._part.frozen > 1

    def _hidden(self, reason: str) -> str:
        """Without an address that may hold a password."""
        if isinstance(self._part, RtspSource | MjpegSource) and self._part.url_file is not None:
            return reason.replace(read_secret(self._part.url_file), "the address")
        return reason
