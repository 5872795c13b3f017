"""Faults while frames come: the line runs on, each frame has one outcome stored, and the sink has them all."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import BundleError, EngineError, ImageError, RuntimeFault
from ahl_runtime.line import line as line_module
from ahl_runtime.line.line import Line
from ahl_runtime.line.store import store
from tests.ahl_runtime.line.sources.test_streams import Camera, images, jpeg, parade
from tests.ahl_runtime.support import all_accounted, rows, until

pytestmark = pytest.mark.slow


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def file_sink(out: Path) -> dict[str, object]:
    return {"name": "file", "kind": "jsonl", "path": out, "retry": 0.05}


def folder(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "in").mkdir()
    return {"name": "in", "kind": "folder", "path": tmp_path / "in", "every": 0.02, "settle": 0.0}


def put(file: Path, body: bytes) -> None:
    aside = file.with_name(f".{file.name}")
    aside.write_bytes(body)
    aside.rename(file)


@contextmanager
def traffic(line: Line, frames: list[np.ndarray]) -> Iterator[list[Any]]:
    """Frames over `submit`, one after the other; what became of each."""
    found: list[Any] = []
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            for frame in frames:
                try:
                    found.append(line.submit(frame))
                except RuntimeFault as error:
                    found.append(error)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield found
    finally:
        over.set()
        sending.join()


def test_a_camera_that_comes_and_goes(running: Callable[..., Line], out: Path, cells: list[Path]) -> None:
    camera = Camera()
    bodies = [jpeg(image) for image in images(cells, 20)]
    camera.shown = parade(bodies)
    camera.plug_in()
    url = f"http://127.0.0.1:{camera.port}/stream"
    source = {"name": "cam", "kind": "mjpeg", "url": url, "retry": 0.1, "retry_most": 0.3, "stall": 1.0}
    line = running(source=[source], sink=[file_sink(out)])
    try:
        for _ in range(3):
            before = line.state().sources[0].frames
            until(lambda before=before: line.state().sources[0].frames > before + 10)
            camera.unplug()
            until(lambda: line.state().sources[0].state == "gone")
            camera.shown = parade(bodies)
            camera.plug_in()
        until(lambda: line.state().sources[0].state == "live")
    finally:
        camera.unplug()
    assert all_accounted(line, out) > 30


def test_one_corrupt_frame_in_ten(running: Callable[..., Line], out: Path, tmp_path: Path, cells: list[Path]) -> None:
    """Files that are cut short, beside a camera whose frames are."""
    camera = Camera()
    bodies = [jpeg(image) for image in images(cells, 20)]
    for i in (4, 14):
        bodies[i] = bodies[i][: len(bodies[i]) // 3]
    camera.shown = parade(bodies)
    camera.plug_in()
    url = f"http://127.0.0.1:{camera.port}/stream"
    source = {"name": "cam", "kind": "mjpeg", "url": url, "policy": "block", "retry": 0.1}
    line = running(source=[source, folder(tmp_path)], sink=[file_sink(out)])
    try:
        for i in range(100):
            whole = cells[i % len(cells)].read_bytes()
            put(tmp_path / "in" / f"{i:03d}.png", whole[: len(whole) // 2] if i % 10 == 7 else whole)
        until(lambda: line.state().sources[0].frames > 100 and line.state().sources[1].frames == 100, 60)
    finally:
        camera.unplug()
    all_accounted(line, out)
    bad = [row["frame"] for row in rows(line.store_path, "SELECT frame FROM faults WHERE source = 'in' ORDER BY frame")]
    assert bad == [f"{i:03d}.png" for i in range(7, 100, 10)]
    assert rows(line.store_path, "SELECT * FROM faults WHERE source = 'cam'")


def test_an_engine_that_raises(running: Callable[..., Line], out: Path, tmp_path: Path, cells: list[Path]) -> None:
    """Now and then, then for good, until the bundle is reloaded."""
    sources = [folder(tmp_path), {"name": "default", "kind": "push"}]
    line = running(source=sources, sink=[file_sink(out)], pipeline={"batch": 4})
    first, turn = line.model, iter(range(10**9))
    held = first.infer

    def failing(batch: np.ndarray, **_: bool) -> Any:
        count = next(turn)
        if count % 7 == 3 or count > 60:
            raise RuntimeError("the device is lost")
        return held(batch)

    first.infer = failing  # type: ignore[method-assign]
    with traffic(line, [decode(cell) for cell in cells]) as found:
        for i in range(60):
            put(tmp_path / "in" / f"{i:02d}.png", cells[i % len(cells)].read_bytes())
        until(lambda: line.model is not first, 60)
        count = len(found)
        until(lambda: len(found) > count + 20)
        until(lambda: line.state().sources[0].frames == 60)
    assert all_accounted(line, out) == len(found) + 60
    failed = [error for error in found if isinstance(error, Exception)]
    assert all(isinstance(error, EngineError) for error in failed)
    faults = rows(line.store_path, "SELECT error FROM faults")
    assert faults and len(faults) >= len(failed)  # of which source's frames is chance
    assert not any(isinstance(result, Exception) for result in found[-20:])


def test_a_bundle_replaced_while_it_is_deployed(
    running: Callable[..., Line], out: Path, make_bundle: Callable[..., Path], cells: list[Path]
) -> None:
    """Another process writes the file, rightly and wrongly, all the while: it is put in force whole, or refused."""
    path = make_bundle("next.ahl", {"name": "one"})
    bodies = [path.read_bytes(), make_bundle("other.ahl", {"name": "another"}).read_bytes()]
    line = running(model={"bundle": make_bundle()}, sink=[file_sink(out)])
    over = threading.Event()

    def replace() -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            put(path, bodies[turn % 2])
            if turn % 4 == 0:
                path.write_bytes(bodies[0][: len(bodies[0]) // 2])
            time.sleep(0.001)

    replacing = threading.Thread(target=replace)
    replacing.start()
    deployed = refused = 0
    try:
        with traffic(line, [decode(cell) for cell in cells[:10]]) as found:
            until(lambda: len(found) > 20)
            while deployed < 4 and refused < 500:  # on a busy machine the file is cut short for most of the time
                try:
                    line.deploy(path)
                    deployed += 1
                except (BundleError, EngineError, ImageError):
                    refused += 1
    finally:
        over.set()
        replacing.join()
    assert all_accounted(line, out) == len(found)
    assert not [result for result in found if isinstance(result, Exception)]
    known = {row["bundle"] for row in rows(line.store_path, "SELECT DISTINCT bundle FROM decisions")}
    assert 1 <= len(known) <= 3 and deployed == 4


def test_a_store_that_takes_nothing_is_no_hang(
    running: Callable[..., Line], cells: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scoring threads wait, each with a decision in hand, for longer than a thread may be silent."""
    monkeypatch.setattr(store, "_WAIT", 0.1)
    monkeypatch.setattr(line_module, "_HUNG", 2.5)  # the store is tried every 2 seconds
    line = running(model={"threads": 2})
    other = sqlite3.connect(line.store_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(line.submit, decode(cells[i]), None, str(i)) for i in range(9)]
        until(lambda: line.state().faults)
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            assert line.healthy
            time.sleep(0.05)
        other.execute("ROLLBACK")
        assert len({f.result().id for f in asked}) == 9
    other.close()
