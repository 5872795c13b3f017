"""Video files and MJPEG over HTTP through FFmpeg: damaged, frozen, gone and back, limited, cut out."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ahl_runtime.core.decode import decode
from ahl_runtime.line.line import Line
from tests.ahl_runtime.support import rows, until


def images(cells: list[Path], count: int) -> list[np.ndarray]:
    """Each differs from the one before."""
    found = []
    for i in range(count):
        image = decode(cells[i % len(cells)]).copy()
        image[:4, :4] = i % 256
        found.append(image)
    return found


@pytest.fixture
def video(tmp_path: Path, cells: list[Path]) -> Path:
    """Thirty frames, Motion JPEG."""
    path = tmp_path / "line.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width = stream.height = 300
        stream.pix_fmt = "yuvj420p"
        for image in images(cells, 30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")))
        container.mux(stream.encode())
    return path


def frames(line: Line) -> list[str]:
    return [row["frame"] for row in rows(line.store_path, "SELECT frame FROM decisions ORDER BY rowid")]


def test_a_video_file_is_decided_frame_by_frame(running: Callable[..., Line], video: Path) -> None:
    line = running(source=[{"name": "film", "kind": "video", "path": video, "queue": 2}])
    until(lambda: line.state().sources[0].state == "ended")
    until(lambda: len(frames(line)) == 30)
    assert frames(line) == [str(i) for i in range(1, 31)]
    picture = line.picture("film")
    assert picture is not None and picture[0].shape == (300, 300, 3)


def test_a_region_and_a_limit(running: Callable[..., Line], video: Path) -> None:
    roi = {"x": 10, "y": 20, "width": 64, "height": 32}
    source = {"name": "film", "kind": "video", "path": video, "realtime": True, "max_fps": 10, "roi": roi}
    line = running(source=[source])
    until(lambda: line.state().sources[0].state == "ended")
    state = until(lambda: (s := line.state().sources[0]).queue == 0 and s.latest and s)
    assert 9 <= state.frames <= 12
    picture = line.picture("film")
    assert picture is not None and picture[0].shape == (32, 64, 3)


def test_a_missing_file_is_reported_and_opened_when_it_comes(
    running: Callable[..., Line], video: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later.avi"
    line = running(source=[{"name": "film", "kind": "video", "path": later, "retry": 0.1, "retry_most": 0.2}])
    (fault,) = until(lambda: line.state().faults)
    assert "film: " in fault and "no such file" in fault
    video.rename(later)
    until(lambda: line.state().sources[0].state == "ended")
    until(lambda: len(frames(line)) == 30 and not line.state().faults)


class Camera:
    """An MJPEG camera. `shown`: the next JPEG; None: it hangs up."""

    def __init__(self) -> None:
        self.shown: Callable[[], bytes | None] = lambda: None
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    def plug_in(self) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while (body := camera.shown()) is not None:
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
                        self.wfile.write(head.encode() + body + b"\r\n")
                        time.sleep(0.01)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def unplug(self) -> None:
        if self._server is not None:
            self.shown = lambda: None
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    yield made
    made.unplug()


def source(camera: Camera, **fields: object) -> dict[str, object]:
    url = f"http://127.0.0.1:{camera.port}/stream"
    usual = {"retry": 0.1, "retry_most": 0.3, "stall": 1.0, "queue": 64}
    return {"name": "cam", "kind": "mjpeg", "url": url, **usual, **fields}


def parade(bodies: list[bytes]) -> Callable[[], bytes]:
    turn = iter(range(10**9))
    return lambda: bodies[next(turn) % len(bodies)]


@pytest.mark.slow
def test_a_camera_that_is_gone_and_back(running: Callable[..., Line], camera: Camera, cells: list[Path]) -> None:
    bodies = [jpeg(i) for i in images(cells, 20)]
    camera.shown = parade(bodies)
    camera.plug_in()
    line = running(source=[source(camera)])
    until(lambda: len(frames(line)) > 5)
    camera.unplug()
    (fault,) = until(lambda: line.state().faults)
    assert fault.startswith("cam: ") and "next attempt in" in fault
    before = len(frames(line))
    camera.shown = parade(bodies)
    camera.plug_in()
    until(lambda: line.state().sources[0].state == "live" and len(frames(line)) > before + 5)
    assert not line.state().faults


@pytest.mark.slow
def test_a_camera_that_says_nothing_is_opened_anew(
    running: Callable[..., Line], camera: Camera, cells: list[Path]
) -> None:
    bodies = [jpeg(i) for i in images(cells, 20)]
    turn = parade(bodies)
    silent = threading.Event()
    camera.shown = lambda: turn() if not silent.is_set() else time.sleep(3) or turn()
    camera.plug_in()
    line = running(source=[source(camera)])
    until(lambda: len(frames(line)) > 5)
    silent.set()
    until(lambda: line.state().sources[0].state == "gone")
    silent.clear()
    before = len(frames(line))
    until(lambda: len(frames(line)) > before)


@pytest.mark.slow
def test_a_frozen_camera_is_noticed_and_its_frames_are_not_decided(
    running: Callable[..., Line], camera: Camera, cells: list[Path]
) -> None:
    (still, *others) = [jpeg(i) for i in images(cells, 20)]
    camera.shown = parade([still])
    camera.plug_in()
    line = running(source=[source(camera, frozen=10)])
    (fault,) = until(lambda: line.state().faults)
    assert "the camera is frozen" in fault and line.state().sources[0].state == "frozen"
    time.sleep(1.0)
    assert len(frames(line)) == 9
    camera.shown = parade(others)
    until(lambda: line.state().sources[0].state == "live")


@pytest.mark.slow
def test_one_damaged_frame_in_ten(running: Callable[..., Line], camera: Camera, cells: list[Path]) -> None:
    bodies = [jpeg(i) for i in images(cells, 20)]
    for i in (4, 14):
        bodies[i] = bodies[i][: len(bodies[i]) // 3]
    camera.shown = parade(bodies)
    camera.plug_in()
    line = running(source=[source(camera)])
    state = until(lambda: (s := line.state().sources[0]).frames > 60 and s)
    assert state.state == "live"
    faults = until(lambda: rows(line.store_path, "SELECT * FROM faults"))
    assert faults[0]["error"] == "the frame is damaged"
    line.stop()
    decided = len(frames(line)) + len(rows(line.store_path, "SELECT * FROM faults"))
    assert decided == line.state().sources[0].frames - line.state().sources[0].dropped


@pytest.mark.parametrize("in_file", [True, False])
def test_an_address_with_a_password_is_never_shown(
    running: Callable[..., Line], tmp_path: Path, caplog: pytest.LogCaptureFixture, in_file: bool
) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    address = f"rtsp://ann:hunter2@127.0.0.1:{port}/live"
    (tmp_path / "url").write_text(address)
    given = {"url_file": tmp_path / "url"} if in_file else {"url": address}
    line = running(source=[{"name": "cam", "kind": "rtsp", "retry": 0.1, **given}])
    (fault,) = until(lambda: line.state().faults)
    assert fault.startswith("cam: ") and "hunter2" not in fault + caplog.text
    assert "a source fails" in caplog.text
    (tmp_path / "url").unlink()
    until(lambda: not in_file or "url: cannot be read" in line.state().sources[0].said)
    assert line.healthy


@pytest.mark.slow
def test_a_camera_of_which_nothing_can_be_decoded(
    running: Callable[..., Line], camera: Camera, cells: list[Path]
) -> None:
    whole = jpeg(images(cells, 1)[0])
    camera.shown = parade([whole[: len(whole) // 3]])
    camera.plug_in()
    line = running(source=[source(camera)])
    until(lambda: "no frame could be decoded for 1 s" in line.state().sources[0].said, 60.0)
    assert line.state().sources[0].state == "gone" and line.state().faults
