"""The ring in shared memory: written by other processes at full speed, killed, made anew, damaged."""

import mmap
import os
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import ImageError, OutputError, SourceError
from ahl_runtime.line.line import Line
from ahl_runtime.line.sources.ring_memory import Reader, Writer
from tests.ahl_runtime.support import rows, until

PATIENCE = 60.0


@pytest.fixture
def path() -> Iterator[Path]:
    """In shared memory, where a grabber has it."""
    found = Path(f"/dev/shm/ahl-test-{uuid.uuid4().hex}")
    yield found
    found.unlink(missing_ok=True)


@pytest.fixture
def cell(cells: list[Path]) -> np.ndarray:
    return decode(cells[0])


def source(path: Path, **fields: object) -> dict[str, object]:
    return {"name": "cam", "kind": "ring", "path": path, "retry": 0.1, "retry_most": 0.2, "stall": 2.0, **fields}


def frames(line: Line) -> list[str]:
    return [row["frame"] for row in rows(line.store_path, "SELECT frame FROM decisions ORDER BY rowid")]


def marked(image: np.ndarray, number: int) -> np.ndarray:
    image = image.copy()
    image[:4, :4] = number % 256
    return image


def state(line: Line) -> tuple[str, str]:
    found = line.state().sources[0]
    return found.state, found.said


def test_frames_come_back_as_they_went_in(path: Path, cell: np.ndarray) -> None:
    with Writer(path, 3, cell.size) as ring, Reader(path) as reader:
        assert reader.written() == 0
        assert [ring.write(marked(cell, i), 1000 + i) for i in range(1, 6)] == [1, 2, 3, 4, 5]
        assert reader.written() == 5
        assert reader.take(1) is None and reader.take(2) is None
        for number in (3, 4, 5):
            found = reader.take(number)
            assert found is not None and found.captured_ns == 1000 + number
            np.testing.assert_array_equal(found.image, marked(cell, number))
        ring.write(cell[:7, :5, 0])
        found = reader.take(6)
        assert found is not None and abs(found.captured_ns - time.time_ns()) < 60e9
        np.testing.assert_array_equal(found.image, cell[:7, :5, 0])
        for wrong in (cell.astype(np.float32), cell[..., :2], cell[:0], np.zeros((999, 999, 3), np.uint8)):
            with pytest.raises(ImageError):
                ring.write(wrong)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_ring_that_cannot_be(path: Path, tmp_path: Path) -> None:
    for slots, size in ((1, 100), (5000, 100), (2, 0)):
        with pytest.raises(OutputError, match="give 2 to 4096"):
            Writer(path, slots, size)
    with pytest.raises(OutputError, match="no ring can be made"):
        Writer(tmp_path / "none" / "ring", 2, 100)
    with pytest.raises(OutputError, match="No space left"):
        Writer(path, 4096, 1 << 31)
    assert not list(path.parent.glob(f".{path.name}*"))


# Each frame is full of bytes of its number, so that one of two halves shows.
FAST = """
import sys, time, pathlib, numpy as np
from ahl_runtime.line.sources.ring_memory import Writer

side = int(sys.argv[3])
with Writer(pathlib.Path(sys.argv[1]), 2, side * side * 3) as ring:
    sys.stdin.readline()
    image, end = np.empty((side, side, 3), np.uint8), time.monotonic() + float(sys.argv[2])
    number = 0
    while time.monotonic() < end:
        number += 1
        image[:] = number % 251
        ring.write(image)
print(number)
"""


def fast(path: Path, seconds: float, side: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", FAST, str(path), str(seconds), str(side)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    until(path.exists, PATIENCE)
    return process


@pytest.mark.slow
def test_no_torn_frame_from_a_writer_at_full_speed(path: Path) -> None:
    writer = fast(path, 5.0, 1000)  # frames so large that some are overwritten while they are read
    with Reader(path) as reader:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        whole = newest = 0
        while writer.poll() is None:
            if (now := reader.written()) == newest:
                continue
            assert now > newest
            newest = now
            for number in range(max(1, newest - reader.slots + 1), newest + 1):
                found = reader.take(number)
                if found is None:
                    continue  # overwritten meanwhile
                whole += 1
                assert found.image.shape == (1000, 1000, 3) and found.number == number
                assert (found.image == number % 251).all(), number
    assert whole > 10 and newest > whole


@pytest.mark.slow
def test_a_line_counts_what_was_overwritten(running: Callable[..., Line], path: Path) -> None:
    line = running(source=[source(path, frozen=0, policy="block", queue=4)])
    until(lambda: state(line)[0] == "gone")  # every frame of a ring that comes later counts
    writer = fast(path, 3.0, 200)
    out, _ = writer.communicate("\n", timeout=PATIENCE)
    written = int(out)
    until(lambda: line.state().sources[0].frames == written, PATIENCE)
    found = until(lambda: (s := line.state().sources[0]).queue == 0 and s, PATIENCE)
    assert found.dropped > 0 and 0 < found.frames - found.dropped < written
    until(lambda: len(frames(line)) == found.frames - found.dropped, PATIENCE)
    picture = line.picture("cam")
    assert picture is not None and len(np.unique(picture[0])) == 1
    line.stop()
    assert not rows(line.store_path, "SELECT * FROM faults")


def test_every_frame_of_a_slow_writer_grey_ones_too(running: Callable[..., Line], path: Path, cell: np.ndarray) -> None:
    line = running(source=[source(path, roi={"x": 0, "y": 0, "width": 64, "height": 32})])
    until(lambda: state(line)[0] == "gone")
    assert "does its grabber run?" in line.state().faults[0]
    with Writer(path, 8, cell.size) as ring:
        for number in range(1, 7):
            image = marked(cell, number)
            ring.write(image[..., 0] if number % 2 else image, 10**18 + number * 10**9)
            until(lambda number=number: len(frames(line)) == number, PATIENCE)
    picture = line.picture("cam")
    assert picture is not None and picture[0].shape == (32, 64, 3)
    (first, *_) = rows(line.store_path, "SELECT captured FROM decisions ORDER BY rowid")
    assert first["captured"].startswith("2001-09-09T01:46:41")
    assert line.state().sources[0].dropped == 0


def test_a_line_leaves_what_was_there_before_it(running: Callable[..., Line], path: Path, cell: np.ndarray) -> None:
    with Writer(path, 8, cell.size) as ring:
        for number in range(5):
            ring.write(marked(cell, number))
        line = running(source=[source(path)])
        until(lambda: ring.write(marked(cell, time.time_ns())) and frames(line), PATIENCE)
        assert len(frames(line)) <= reader_count(path) - 5


def reader_count(path: Path) -> int:
    with Reader(path) as reader:
        return reader.written()


# A grabber that is killed in the middle of a frame, as often as it begins.
KILLED = """
import sys, pathlib, numpy as np
from ahl_runtime.line.sources.ring_memory import Writer

ring = Writer(pathlib.Path(sys.argv[1]), 4, 64 * 64 * 3)
number = 0
while True:
    number += 1
    image = np.full((64, 64, 3), number % 251, np.uint8)
    ring.write(image)
    if number == 3:
        print("three", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_and_back(running: Callable[..., Line], path: Path) -> None:
    line = running(source=[source(path, stall=0.5, frozen=0)])
    before = 0
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdin is not None and writer.stdout is not None
            assert writer.stdout.readline() == "three\n"
            until(lambda before=before: len(frames(line)) >= before + 3, PATIENCE)
            assert state(line)[0] == "live"
            writer.stdin.write("\n")
            writer.stdin.flush()
            time.sleep(0.3)
            writer.kill()
        until(lambda: state(line)[0] == "gone", PATIENCE)
        assert "no frame for 0.5 s: does the grabber run?" in line.state().faults[0]
        before = len(frames(line))
    line.stop()
    found = line.state().sources[0]
    assert len(frames(line)) == found.frames - found.dropped


def test_a_frozen_grabber(running: Callable[..., Line], path: Path, cell: np.ndarray) -> None:
    line = running(source=[source(path, frozen=5)])
    with Writer(path, 8, cell.size) as ring:
        until(lambda: ring.write(cell) and state(line)[0] == "frozen", PATIENCE)
        assert "the camera is frozen" in line.state().faults[0]
        numbers = iter(range(10**9))
        until(lambda: ring.write(marked(cell, next(numbers))) and state(line)[0] == "live", PATIENCE)


def by_the_page(path: Path, image: np.ndarray, **wrong: int) -> mmap.mmap:
    """A ring with one frame, from docs/reference/ring.md alone."""
    height, width, channels = image.shape
    slot = 64 + -(-image.size // 64) * 64
    with path.with_suffix(".new").open("wb") as file:
        file.truncate(64 + 2 * slot)
    with path.with_suffix(".new").open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 0)
    path.with_suffix(".new").rename(path)
    shared[0:8] = b"AHLRING\0"
    struct.pack_into("<II", shared, 8, wrong.get("version", 1), wrong.get("slots", 2))
    struct.pack_into("<QQQ", shared, 16, wrong.get("slot", slot), wrong.get("id", 1), 0)
    at = 64
    struct.pack_into("<Q", shared, at, 1)
    struct.pack_into("<QIII", shared, at + 16, 0, wrong.get("height", height), wrong.get("width", width), channels)
    shared[at + 64 : at + 64 + image.size] = image.tobytes()
    struct.pack_into("<Q", shared, at + 8, wrong.get("done", 1))
    struct.pack_into("<Q", shared, 32, wrong.get("written", 1))
    return shared


def test_a_grabber_in_another_language(path: Path, cell: np.ndarray) -> None:
    by_the_page(path, cell)
    with Reader(path) as reader:
        found = reader.take(reader.written())
        assert found is not None and found.captured_ns == 0
        np.testing.assert_array_equal(found.image, cell)
        assert not reader.replaced()
        by_the_page(path, cell)
        assert reader.replaced()


def test_a_frame_that_is_begun_is_not_taken(path: Path, cell: np.ndarray) -> None:
    shared = by_the_page(path, cell)
    with Reader(path) as reader:
        struct.pack_into("<Q", shared, 64, 3)
        assert reader.take(1) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"version": 2}, "ring version 2, this runtime reads 1: update one of them"),
        ({"slots": 1}, "see docs/reference/ring.md"),
        ({"slots": 4}, "4 slots of"),
        ({"slots": 2**32 - 1}, "see docs/reference/ring.md"),
        ({"slot": 2**63}, "see docs/reference/ring.md"),
        ({"slot": 64}, "see docs/reference/ring.md"),
        ({"slot": 65}, "see docs/reference/ring.md"),
    ],
)
def test_a_header_that_cannot_be(path: Path, cell: np.ndarray, wrong: dict[str, int], said: str) -> None:
    by_the_page(path, cell, **wrong)
    with pytest.raises(SourceError) as caught:
        Reader(path)
    assert said in str(caught.value)


def test_slots_that_cannot_be(path: Path, cell: np.ndarray) -> None:
    for wrong in ({"height": 2**32 - 1}, {"height": 0}, {"width": cell.shape[1] + 99}):
        by_the_page(path, cell, **wrong)
        with Reader(path) as reader, pytest.raises(ImageError, match="does not fit its slot"):
            reader.take(1)
    by_the_page(path, cell, written=2)
    with Reader(path) as reader, pytest.raises(SourceError, match="the slot of frame 2 still holds frame 0"):
        reader.take(2)
    by_the_page(path, cell)
    with Reader(path) as reader:
        os.truncate(path, 100)
        with pytest.raises(SourceError, match="it was cut short"):
            reader.take(1)
    path.write_bytes(b"a file")
    with pytest.raises(SourceError, match="not a ring of frames"):
        Reader(path)


def test_a_line_under_a_grabber_that_errs(running: Callable[..., Line], path: Path, cell: np.ndarray) -> None:
    line = running(source=[source(path)])
    until(lambda: state(line)[0] == "gone")
    by_the_page(path, cell, height=0, id=2)
    until(lambda: rows(line.store_path, "SELECT * FROM faults"), PATIENCE)
    shared = by_the_page(path, cell, id=3)
    until(lambda: len(frames(line)) == 1, PATIENCE)
    struct.pack_into("<Q", shared, 32, 0)
    until(lambda: "its frame count went back" in state(line)[1], PATIENCE)
    by_the_page(path, marked(cell, 1), id=4)
    until(lambda: len(frames(line)) == 2 and state(line)[0] == "live", PATIENCE)
