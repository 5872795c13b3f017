"""RTSP from a real server, Debian's rtsp-server-perl, that relays what FFmpeg sends it: over UDP, gone and back."""

import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from ahl_runtime.core.decode import decode
from ahl_runtime.line.line import Line
from tests.ahl_runtime.support import rows, until

pytestmark = pytest.mark.slow
PATIENCE = 60.0
HOST = "127.0.0.1"


class Relay:
    """A camera's server: FFmpeg announces a stream to it, and whoever asks is sent it."""

    def __init__(self, image: np.ndarray, log: Path) -> None:
        self._image, self._log = image, log
        self._listen, self._sent, self._media = random.sample(range(20_000, 30_000, 10), 3)
        self._process: subprocess.Popen[bytes] | None = None
        self._sender: threading.Thread | None = None
        self._end = threading.Event()
        self.codec = "mpeg4"
        self.url = f"rtsp://{HOST}:{self._listen}/live"

    def plug_in(self) -> None:
        ports = ["--clientport", self._listen, "--serverport", self._sent, "--rtp_start_port", self._media]
        hosts = ["--client_listen_address", HOST, "--source_listen_address", HOST]
        command = ["rtsp-server-perl", *map(str, ports), *hosts, "--loglevel", "1"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._end.clear()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    def _send(self) -> None:
        while not self._end.wait(0.2):
            try:
                self._announce()
            except (OSError, av.error.FFmpegError):  # the server is not there yet, or was killed
                continue

    def _announce(self) -> None:
        options, where = {"rtsp_transport": "udp"}, f"rtsp://{HOST}:{self._sent}/live"
        with av.open(where, "w", format="rtsp", options=options, timeout=5.0) as container:
            stream = container.add_stream(self.codec, rate=20)
            stream.gop_size = 5
            if self.codec == "mjpeg":
                stream.options = {"huffman": "default"}  # RTP sends no tables: the standard's own are meant
            stream.height, stream.width = self._image.shape[:2]
            stream.pix_fmt = form = "yuvj420p" if self.codec == "mjpeg" else "yuv420p"
            count = 0
            while not self._end.wait(0.05):
                image = self._image.copy()
                image[:16, :16] = 10 * count % 256
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=form)
                frame.pts = count
                container.mux(stream.encode(frame))
                count += 1

    def unplug(self) -> None:
        self._end.set()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._sender is not None:
            self._sender.join(PATIENCE)
            self._sender = None


@pytest.fixture
def relay(cells: list[Path], tmp_path: Path) -> Iterator[Relay]:
    # Motion JPEG over RTP has its size in eights.
    made = Relay(decode(cells[0])[:296, :296], tmp_path / "relay.log")
    yield made
    made.unplug()


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_a_stream_that_is_gone_and_back(running: Callable[..., Line], relay: Relay, codec: str) -> None:
    relay.codec = codec
    relay.plug_in()
    settings = {"udp": True, "retry": 0.1, "retry_most": 0.3, "stall": 3.0, "queue": 64}
    line = running(source=[{"name": "cam", "kind": "rtsp", "url": relay.url, **settings}])

    def decided() -> int:
        return len(rows(line.store_path, "SELECT frame FROM decisions"))

    until(lambda: decided() > 5, PATIENCE)
    picture = line.picture("cam")
    assert picture is not None and picture[0].shape == (296, 296, 3)
    assert line.state().sources[0].state == "live"
    relay.unplug()
    until(lambda: line.state().sources[0].state == "gone", PATIENCE)
    assert any("next attempt in" in fault for fault in line.state().faults)
    before = decided()
    relay.plug_in()
    until(lambda: line.state().sources[0].state == "live" and decided() > before + 5, PATIENCE)
    assert line.stop()
    (found, _) = line.state().sources
    kept = rows(line.store_path, "SELECT id FROM decisions UNION ALL SELECT id FROM faults")
    assert len(kept) == found.frames - found.dropped
