"""Aravis' fake camera, as Debian ships it, over loopback: its formats, region, triggers; gone and back, frozen."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import requests

from ahl_runtime.core.errors import Busy, ConfigError, ImageError, NoSource, SourceError
from ahl_runtime.http.app import build
from ahl_runtime.http.server import Server
from ahl_runtime.http.settings import Settings
from ahl_runtime.line.line import Line
from ahl_runtime.line.sources.cameras.aravis import LIBRARY, Buffer, Camera
from ahl_runtime.line.sources.cameras.gige import FORMATS, GigeSource, rgb
from ahl_runtime.service.config import LineConfig
from tests.ahl_runtime.support import rows, until

pytestmark = pytest.mark.slow
ADDRESS, NAME = "127.0.0.1", "Aravis-Fake-line"
PATIENCE = 90.0  # seconds: Aravis itself takes ten to let a dead camera go


class Fake:
    """A camera that can be unplugged."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def plug_in(self) -> None:
        self.process = subprocess.Popen(["arv-fake-gv-camera-0.8", "-i", ADDRESS, "-s", "line"])
        until(self.answers, PATIENCE)

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None
        try:
            with Camera(ADDRESS) as camera:
                return bool(camera.region())
        except SourceError:
            return False

    def unplug(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    made.plug_in()
    yield made
    made.unplug()


def source(**fields: object) -> dict[str, object]:
    usual = {"camera": ADDRESS, "retry": 0.1, "retry_most": 0.3, "stall": 2.0, "queue": 64, "frozen": 50}
    roi = {"x": 0, "y": 0, "width": 128, "height": 96}
    return {"name": "cam", "kind": "gige", "roi": roi, **usual, **fields}


def decided(line: Line) -> int:
    (found,) = rows(line.store_path, "SELECT count(*) AS n FROM decisions")
    return int(found["n"])


def pixels(line: Line) -> np.ndarray:
    picture = line.picture("cam")
    assert picture is not None
    return picture[0]


def state(line: Line) -> tuple[str, str]:
    found = line.state().sources[0]
    return found.state, found.said


def first(pixel_format: str, width: int = 300, height: int = 40) -> tuple[np.ndarray, Buffer]:
    with Camera(ADDRESS) as camera:
        camera.set_pixel_format(pixel_format)
        camera.set_region(0, 0, width, height)
        camera.set_trigger(None)
        camera.start()
        buffer = until(lambda: camera.next(1.0), PATIENCE)
        return rgb(buffer), buffer


def test_a_region_by_the_cameras_name_in_the_order_of_time(fake: Fake, running: Callable[..., Line]) -> None:
    line = running(source=[source(camera=NAME, pixel_format="RGB8", max_fps=200)])
    until(lambda: decided(line) >= 10, PATIENCE)
    assert pixels(line).shape == (96, 128, 3)
    assert state(line)[0] == "live" and state(line)[1].endswith("of 128x96") and not line.state().faults
    found = rows(line.store_path, "SELECT frame, captured FROM decisions ORDER BY rowid")
    times = [row["captured"] for row in found]
    assert times == sorted(times) and all(times)
    numbers = [int(row["frame"]) for row in found]
    assert numbers == sorted(set(numbers))


def test_colours_of_every_format(fake: Fake) -> None:
    """The fake camera draws a ramp along the diagonal, a step further with each frame: its palette, shifted."""
    coloured, _ = first("RGB8")
    palette = coloured[0, :255].astype(int)
    y, x = np.mgrid[:40, :300]

    def apart(image: np.ndarray, colours: np.ndarray) -> float:
        inner = (slice(2, -2), slice(2, -2))
        return min(np.abs(image[inner] - colours[(x + y + k) % 255][inner]).mean() for k in range(255))

    assert apart(coloured, palette) == 0 and apart(coloured, palette[:, ::-1]) > 20
    for name in ("BayerGR8", "BayerGB8"):
        assert apart(first(name)[0], palette) < 2, name
    for name in ("BayerRG8", "BayerBG8"):  # whose mosaics Debian's fake camera draws with red and blue exchanged
        image, _ = first(name)
        assert min(apart(image, palette), apart(image, palette[:, ::-1])) < 2, name
    grey, _ = first("Mono8")
    assert apart(grey, np.repeat(np.arange(255)[:, None], 3, axis=1)) == 0


def test_mosaics_are_those_that_aravis_says() -> None:
    """Its own table of what the codes mean to GStreamer."""
    tell = ctypes.CDLL(LIBRARY).arv_pixel_format_to_gst_caps_string
    tell.restype, tell.argtypes = ctypes.c_char_p, (ctypes.c_uint32,)
    for code, (name, _, convert) in FORMATS.items():
        if convert is not None:
            assert f"format=(string){convert.removeprefix('bayer_')[:4]}" in tell(code).decode(), name


def test_what_is_not_read_is_refused_with_the_way_out(fake: Fake, running: Callable[..., Line]) -> None:
    line = running(source=[source(pixel_format="Mono16")])
    (fault,) = until(lambda: line.state().faults, PATIENCE)
    assert "0x01100007 is not supported: set pixel_format to one of Mono8, BayerGR8" in fault
    assert "next attempt" in fault
    with pytest.raises(SourceError, match="BayerRG8 of 31x20: set a roi with even sides"):
        first("BayerRG8", 31, 20)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pixel_format": "Mono7"}, "Mono7"),
        ({"features": {"ExposureTime": 5}}, "[ExposureTime] Not found"),
        ({"features": {"BinningHorizontal": "two"}}, "(two)"),
        ({"trigger": "Line9"}, "Line9"),
        ({"roi": {"x": 0, "y": 0, "width": 4096, "height": 40}}, "region 4096x40 at 0, 0: "),
        ({"camera": "nobody"}, "'nobody' not found"),
    ],
)
def test_settings_that_the_camera_refuses(
    fake: Fake, running: Callable[..., Line], fields: dict[str, Any], said: str
) -> None:
    line = running(source=[source(**fields)])
    (fault,) = until(lambda: line.state().faults, PATIENCE)
    assert fault.startswith("cam: ") and said in fault


def test_features_are_set(fake: Fake, running: Callable[..., Line]) -> None:
    features = {"ExposureTimeAbs": 5000, "TriggerActivation": "RisingEdge", "Width": 64, "Height": 48}
    line = running(source=[source(features=features, roi=None)])
    until(lambda: decided(line) > 1, PATIENCE)
    assert pixels(line).shape == (48, 64, 3)


def test_frames_between_are_left_out(fake: Fake, running: Callable[..., Line]) -> None:
    line = running(source=[source(max_fps=2)])
    until(lambda: decided(line) >= 4, PATIENCE)
    first_, *_, last = rows(line.store_path, "SELECT captured FROM decisions ORDER BY rowid")
    taken = np.datetime64(last["captured"][:23]) - np.datetime64(first_["captured"][:23])
    assert taken >= np.timedelta64(900, "ms")  # 25 would have come meanwhile


def test_a_camera_that_is_gone_and_back(fake: Fake, running: Callable[..., Line]) -> None:
    line = running(source=[source(camera=NAME)])
    until(lambda: decided(line) > 3, PATIENCE)
    fake.unplug()
    until(lambda: state(line)[0] == "gone", PATIENCE)
    assert "next attempt in" in line.state().faults[0]
    before = decided(line)
    fake.plug_in()
    until(lambda: state(line)[0] == "live" and decided(line) > before + 3, PATIENCE)
    assert not line.state().faults


def test_a_camera_that_says_nothing(fake: Fake, running: Callable[..., Line]) -> None:
    """Stopped in the middle: its sockets are still there."""
    line = running(source=[source(stall=1.0)])
    until(lambda: decided(line) > 3, PATIENCE)
    assert fake.process is not None
    os.kill(fake.process.pid, signal.SIGSTOP)
    until(lambda: state(line)[0] == "gone", PATIENCE)
    os.kill(fake.process.pid, signal.SIGCONT)
    before = decided(line)
    until(lambda: state(line)[0] == "live" and decided(line) > before, PATIENCE)


STILL = """
import ctypes, time
from ahl_runtime.line.sources.cameras.aravis import LIBRARY
from ctypes import c_void_p as pointer

aravis = ctypes.CDLL(LIBRARY)
aravis.arv_gv_fake_camera_new.restype = aravis.arv_gv_fake_camera_get_fake_camera.restype = pointer
aravis.arv_buffer_get_data.restype = pointer
size = ctypes.c_size_t()

@ctypes.CFUNCTYPE(None, pointer, pointer, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)
def grey(buffer, *_):
    data = aravis.arv_buffer_get_data(pointer(buffer), ctypes.byref(size))
    ctypes.memset(data, 100, size.value)

server = aravis.arv_gv_fake_camera_new(b"127.0.0.1", b"line")
camera = aravis.arv_gv_fake_camera_get_fake_camera(pointer(server))
aravis.arv_fake_camera_set_fill_pattern(pointer(camera), grey, None)
time.sleep(600)
"""


def test_a_frozen_camera(running: Callable[..., Line]) -> None:
    """The same fake camera, from the library: it draws the same picture again and again."""
    camera = Fake()
    camera.process = subprocess.Popen([sys.executable, "-c", STILL])
    try:
        until(camera.answers, PATIENCE)
        line = running(source=[source(frozen=5)])
        until(lambda: state(line)[0] == "frozen", PATIENCE)
        assert "the camera is frozen" in line.state().faults[0]
        assert decided(line) <= 4
    finally:
        camera.unplug()
    camera.plug_in()
    try:
        until(lambda: state(line)[0] == "live", PATIENCE)
    finally:
        camera.unplug()


def test_software_trigger(fake: Fake, running: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AHL_TOKEN", raising=False)
    line = running(source=[source(trigger="Software", stall=1.0)])
    until(lambda: state(line) == ("live", "open, waiting for trigger Software"), PATIENCE)
    settings = Settings(port=0)
    app = build(line, settings)
    with Server(app.asgi, settings, app.stop) as server:
        for count in range(1, 4):
            answer = requests.post(f"{server.url}/v1/sources/cam/trigger", timeout=60)
            assert (answer.status_code, answer.json()) == (202, {"source": "cam"})
            until(lambda count=count: decided(line) == count, PATIENCE)
        assert requests.post(f"{server.url}/v1/sources/other/trigger", timeout=60).status_code == 404
        refused = requests.post(f"{server.url}/v1/sources/default/trigger", timeout=60)
        assert refused.status_code == 409 and "has no software trigger" in refused.json()["error"]
        fake.unplug()
        gone = requests.post(f"{server.url}/v1/sources/cam/trigger", timeout=60)
        assert gone.status_code == 503 and "cannot be triggered" in gone.json()["error"]
    line.stop()
    assert decided(line) == 3


def test_a_triggered_camera_that_is_gone_is_missed_without_a_part(fake: Fake, running: Callable[..., Line]) -> None:
    line = running(source=[source(trigger="Software", stall=1.0)])
    until(lambda: state(line)[0] == "live", PATIENCE)
    fake.unplug()
    until(lambda: state(line)[0] == "gone", PATIENCE)
    with pytest.raises(Busy, match="cannot be triggered"):
        line.trigger("cam")
    fake.plug_in()
    until(lambda: state(line)[0] == "live", PATIENCE)
    line.trigger("cam")
    until(lambda: decided(line) == 1, PATIENCE)


def test_hardware_trigger(fake: Fake, running: Callable[..., Line]) -> None:
    """The fake camera has no wire: no frame comes, and none is missed."""
    line = running(source=[source(trigger="Line0", stall=0.5)])
    until(lambda: state(line)[0] == "live", PATIENCE)
    with pytest.raises(SourceError, match="set trigger = 'Software'"):
        line.trigger("cam")
    with pytest.raises(NoSource):
        line.trigger("other")
    with pytest.raises(SourceError, match="has no software trigger"):
        line.trigger("default")
    line.stop()
    assert decided(line) == 0 and state(line)[0] == "live"


def test_packets_that_are_lost_are_faults(running: Callable[..., Line]) -> None:
    command = ["arv-fake-gv-camera-0.8", "-i", ADDRESS, "-s", "line", "-r", "100"]
    camera = Fake()
    camera.process = subprocess.Popen(command)
    try:
        until(camera.answers, PATIENCE)
        line = running(source=[source(roi={"x": 0, "y": 0, "width": 512, "height": 512})])
        faults = until(lambda: rows(line.store_path, "SELECT error FROM faults"), PATIENCE)
        assert faults[0]["error"].startswith("the frame is damaged: ")
        line.stop()
        kept = len(rows(line.store_path, "SELECT id FROM decisions UNION ALL SELECT id FROM faults"))
        (found, _) = line.state().sources
        assert kept == found.frames - found.dropped
    finally:
        camera.unplug()


def test_a_buffer_that_does_not_hold_its_image() -> None:
    short = Buffer(4, 4, 0x01080001, 0, "", lambda: b"123")
    with pytest.raises(ImageError, match="3 bytes for 4x4 of Mono8"):
        rgb(short)


def test_settings(config: Callable[..., LineConfig]) -> None:
    (part, _) = config(source=[source(features={"Gain": 1.5, "On": True, "Mode": "Off", "N": 3})]).sources
    assert isinstance(part, GigeSource)
    assert [type(v) for v in part.features.values()] == [float, bool, str, int]
    with pytest.raises(ConfigError, match=r"source\[1\]\.trigger"):
        config(source=[source(trigger="Line 1; rm")])
