"""A running line: frames are pushed, folders watched, decisions stored once, sinks notified, faults survived."""

import hashlib
import io
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import Busy, EngineError, ImageError, NoSource, SourceError
from ahl_runtime.core.types import Frame
from ahl_runtime.line.line import Line
from ahl_runtime.line.queues import PendingFrame
from ahl_runtime.line.store.store import Store
from ahl_runtime.score.scoring import Scorer
from tests.ahl_runtime.support import lines, rows, until

BLACK = np.zeros((64, 64, 3), np.uint8)


def test_a_pushed_frame_is_decided_and_stored(
    running: Callable[..., Line], cells: list[Path], bundle_path: Path
) -> None:
    line = running()
    line.check_ready()
    recorded = line.submit(decode(cells[0]), None, "part-7")
    direct = Scorer(open_bundle(bundle_path), threads=1).score(decode(cells[0]))
    (row,) = rows(line.store_path, "SELECT * FROM decisions")
    assert (row["id"], row["frame"], row["source"]) == (recorded.id, "part-7", "default")
    assert row["score"] == recorded.decision.score == direct.score and row["verdict"] == direct.verdict
    assert set(recorded.milliseconds) == {"wait", "score", "store", "total"}
    state = line.state()
    assert (state.sources[0].frames, state.sources[0].drift.state) == (1, "calm") and not state.faults
    (stages,) = line.latencies().collect()
    counts = {s.labels["stage"]: s.value for s in stages.samples if s.name.endswith("_count")}
    assert counts == {"wait": 1, "score": 1, "store": 1, "total": 1}
    image, anomaly_map = line.picture("default") or (None, None)
    assert image is not None and np.array_equal(image, decode(cells[0])) and anomaly_map is not None


def test_many_at_once_are_each_decided_once(running: Callable[..., Line], cells: list[Path]) -> None:
    line = running(pipeline={"batch": 8})
    images = [decode(cell)[: 300 - 4 * (i % 3)] for i, cell in enumerate(cells)]  # of three shapes
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: line.submit(images[i % 40], None, str(i)), range(160)))
    stored = {row["id"]: row["frame"] for row in rows(line.store_path, "SELECT * FROM decisions")}
    assert stored == {r.id: str(i) for i, r in enumerate(found)}
    alone = Scorer(open_bundle(line.model.path), threads=1)
    for i in (0, 1, 2):
        assert found[i].decision.score == pytest.approx(alone.score(images[i]).score, abs=1e-6)


def test_frames_are_scored_in_parallel_and_passed_on_in_order(running: Callable[..., Line], cells: list[Path]) -> None:
    """A frame does not wait for the one before it to be scored; its decision waits to be stored."""
    line = running(model={"threads": 2})
    held, together = line.model.infer, threading.Barrier(2)

    def slow(images: np.ndarray, **_: bool) -> Any:
        together.wait(20)
        if (images == 0).all():
            time.sleep(0.3)
        return held(images)

    line.model.infer = slow  # type: ignore[method-assign]
    frames = [BLACK if i % 2 == 0 else decode(cells[i]) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        asked = []
        for i, frame in enumerate(frames):
            asked.append(pool.submit(line.submit, frame, None, str(i)))
            until(lambda i=i: line.state().sources[0].frames == i + 1)
        found = [f.result() for f in asked]
    stored = rows(line.store_path, "SELECT id, frame FROM decisions ORDER BY rowid")
    assert [row["frame"] for row in stored] == [str(i) for i in range(8)]
    assert [row["id"] for row in stored] == [r.id for r in found]


def test_a_slow_frame_holds_the_others_decisions_back_but_not_their_scoring(
    running: Callable[..., Line], cells: list[Path]
) -> None:
    line = running(model={"threads": 2})
    held, go_on, scored = line.model.infer, threading.Event(), []

    def infer(images: np.ndarray, **_: bool) -> Any:
        if (images == 0).all():
            assert go_on.wait(20)
        found = held(images)
        scored.append(len(scored))
        return found

    line.model.infer = infer  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(line.submit, BLACK, None, "0")]
        until(lambda: line.state().sources[0].frames == 1 and line.state().sources[0].queue == 0)
        for i in range(1, 6):
            asked.append(pool.submit(line.submit, decode(cells[i]), None, str(i)))
            until(lambda i=i: line.state().sources[0].frames == i + 1)
        until(lambda: len(scored) == 3)
        time.sleep(0.3)
        assert len(scored) == 3  # not without end
        assert not rows(line.store_path, "SELECT id FROM decisions")
        go_on.set()
        found = [f.result() for f in asked]
    stored = rows(line.store_path, "SELECT id FROM decisions ORDER BY rowid")
    assert [row["id"] for row in stored] == [r.id for r in found]


def test_a_frame_has_all_cores_where_it_is_alone(running: Callable[..., Line], cells: list[Path]) -> None:
    model = running(model={"threads": 2}).model
    images, used = decode(cells[0])[np.newaxis], []
    for name in ("_alone", "_together"):
        engine = getattr(model, name)
        setattr(engine, "_run", lambda i, run=engine._run, name=name: used.append(name) or run(i))  # noqa: B010
    expected = model.infer(images)
    beside = model.infer(images, more=True)
    assert used == ["_alone", "_together"]
    np.testing.assert_allclose(beside.score, expected.score, atol=1e-5)
    used.clear()
    together, go_on = model._together._run, threading.Event()
    model._together._run = lambda i: go_on.wait(20) and together(i)  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(model.infer, images, more=True)
        until(lambda: model._inside)
        second = pool.submit(model.infer, images)
        until(lambda: model._inside == 2)
        go_on.set()
        assert first.result().score == second.result().score
    assert used == ["_together", "_together"] and model._inside == 0


def test_many_frames_of_one_request_are_scored_a_batch_at_a_time(
    running: Callable[..., Line], cells: list[Path]
) -> None:
    line = running(pipeline={"batch": 3})
    held, sizes = line.model.infer, []

    def counted(batch: np.ndarray, **_: bool) -> Any:
        sizes.append(len(batch))
        return held(batch)

    line.model.infer = counted  # type: ignore[method-assign]
    frames = np.stack([decode(cell) for cell in cells[:8]])
    found = line.infer(frames)
    assert sizes == [3, 3, 2]
    np.testing.assert_array_equal(found.score, held(frames).score)
    assert found.anomaly_map.shape == (8, 16, 16) and found.head_scores.shape == (8, 2)


def test_an_unknown_source(running: Callable[..., Line]) -> None:
    line = running()
    with pytest.raises(NoSource, match="the line has default"):
        line.submit(BLACK, "left", "")
    with pytest.raises(NoSource, match="left"):
        line.picture("left")


def test_rejects_are_kept_and_can_be_marked(running: Callable[..., Line]) -> None:
    line = running(store={"keep_passes": 0.0})
    recorded = line.submit(BLACK, None, "black")
    assert recorded.decision.verdict == "reject"
    (row,) = rows(line.store_path, "SELECT * FROM decisions")
    assert np.array_equal(decode(row["image"]), BLACK)
    with Store(line.store_path) as store:
        assert store.mark(row["id"], "right", "ann") == "anomaly"
    line.submit(np.full((64, 64, 3), 255, np.uint8), None, "white")
    assert [r["image"] != "" for r in rows(line.store_path, "SELECT * FROM decisions ORDER BY rowid")] == [True, False]


def test_an_image_that_came_as_a_file_is_kept_as_it_came(running: Callable[..., Line]) -> None:
    """Nothing is packed anew; where a region was cut out of it, its pixels are."""
    out = io.BytesIO()
    Image.fromarray(BLACK).save(out, "BMP")
    region = {"x": 0, "y": 0, "width": 8, "height": 8}
    line = running(source=[{"name": "whole", "kind": "push"}, {"name": "cut", "kind": "push", "roi": region}])
    for name in ("whole", "cut"):
        line.submit(decode(out.getvalue()), name, file=out.getvalue())
    whole, cut = rows(line.store_path, "SELECT * FROM decisions ORDER BY rowid")
    assert Path(whole["image"]).suffix == ".bmp" and Path(whole["image"]).read_bytes() == out.getvalue()
    assert hashlib.sha256(out.getvalue()).hexdigest() == whole["sha256"]
    assert np.array_equal(decode(cut["image"]), BLACK[:8, :8])


def test_a_full_queue_drops_the_oldest_and_counts(running: Callable[..., Line]) -> None:
    source = {"name": "cam", "kind": "push", "policy": "drop-oldest", "queue": 2, "wait": 30.0}
    line = running(source=[source])
    entered, go_on = threading.Event(), threading.Event()
    held = line.model.infer

    def slow(images: np.ndarray, **_: bool) -> Any:
        entered.set()
        go_on.wait(20)
        return held(images)

    line.model.infer = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(line.submit, BLACK, None, "0")
        entered.wait(20)
        others = []
        for i in range(1, 5):
            others.append(pool.submit(line.submit, BLACK, None, str(i)))
            until(lambda i=i: line.state().sources[0].frames == i + 1)
        go_on.set()
        errors = [f.exception() for f in (first, *others)]
    assert [type(e) for e in errors] == [type(None), Busy, Busy, type(None), type(None)]
    state = line.state().sources[0]
    assert (state.frames, state.dropped, state.passed + state.rejected + state.unsure) == (5, 2, 3)


def test_a_full_queue_that_blocks_is_busy(running: Callable[..., Line]) -> None:
    line = running(source=[{"name": "cam", "kind": "push", "queue": 1, "wait": 0.3}])
    go_on = threading.Event()
    held = line.model.infer
    line.model.infer = lambda images, **_: go_on.wait(20) and held(images)  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(3) as pool:
        errors = [f.exception() for f in [pool.submit(line.submit, BLACK, None, str(i)) for i in range(3)]]
    assert all(isinstance(e, Busy) for e in errors)
    go_on.set()
    until(lambda: len(rows(line.store_path, "SELECT * FROM decisions")) == line.state().sources[0].frames)


def test_an_engine_error_is_reported_and_the_line_continues(running: Callable[..., Line]) -> None:
    line = running(pipeline={"batch": 8})
    held = line.model.infer

    def failing(images: np.ndarray, **_: bool) -> Any:
        if (images == 7).all(axis=(1, 2, 3)).any():
            raise MemoryError("no room")
        return held(images)

    line.model.infer = failing  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as pool:
        frames = [np.full((32, 32, 3), 7 if i % 4 == 0 else 200, np.uint8) for i in range(24)]
        asked = [pool.submit(line.submit, f, None, str(i)) for i, f in enumerate(frames)]
        errors = [f.exception() for f in asked]
    assert [isinstance(e, EngineError) for e in errors] == [i % 4 == 0 for i in range(24)]
    assert len(rows(line.store_path, "SELECT * FROM decisions")) == 18
    faults = rows(line.store_path, "SELECT * FROM faults")
    assert sorted(int(f["frame"]) for f in faults) == [0, 4, 8, 12, 16, 20] and "no room" in faults[0]["error"]
    line.submit(BLACK, None, "")
    line.check_ready()


def test_a_failed_thread_is_reported(running: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process then ends with exit code 70, and systemd starts it again."""
    line = running()
    assert line.healthy

    def broken(*_: object) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(line._queues, "take", broken)
    until(lambda: not line.healthy)
    assert line.state().faults == ["score 0: RuntimeError: a fault of ours"]
    with pytest.raises(Busy, match="a fault of ours"):
        line.check_ready()


def test_a_problem_is_shown_for_an_hour(running: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    line = running()
    held = line.model.infer
    line.model.infer = lambda images, **_: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(EngineError):
        line.submit(BLACK, None, "7")
    line.model.infer = held  # type: ignore[method-assign]
    line.submit(BLACK, None, "8")
    (fault,) = line.state().faults
    assert fault.startswith("default: 1 frames without a decision, the last: frame 7: ZeroDivisionError")
    monkeypatch.setattr("ahl_runtime.line.monitor.source_monitor._SHOWN", 0.0)
    assert line.state().faults == []


def test_an_engine_that_fails_for_good_is_loaded_anew(running: Callable[..., Line]) -> None:
    line = running()

    def failing(images: np.ndarray, **_: bool) -> Any:
        raise EngineError("the device is lost")

    line.model.infer = failing  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(EngineError, match="the device is lost"):
            line.submit(BLACK, None, "")
    assert line.submit(BLACK, None, "").decision.verdict == "reject"


def folder(tmp_path: Path, **fields: object) -> dict[str, object]:
    (tmp_path / "in").mkdir(exist_ok=True)
    return {"name": "in", "kind": "folder", "path": tmp_path / "in", "every": 0.05, "settle": 0.1, **fields}


def test_a_folder_is_watched_each_file_once(running: Callable[..., Line], tmp_path: Path, cells: list[Path]) -> None:
    out = tmp_path / "out.jsonl"
    sections = {"source": [folder(tmp_path)], "sink": [{"name": "file", "kind": "jsonl", "path": out}]}
    line = running(**sections)
    for cell in cells[:5]:
        shutil.copy(cell, tmp_path / "in" / f".{cell.name}.part")
        (tmp_path / "in" / f".{cell.name}.part").rename(tmp_path / "in" / cell.name)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / "bad.png").write_bytes(cells[0].read_bytes()[:500])
    until(lambda: len(lines(out)) == 6)
    line.stop()
    again = running(**sections)
    shutil.copy(cells[5], tmp_path / "in")
    until(lambda: len(lines(out)) == 7)
    assert again.state().sources[0].frames == 1
    names = [row["frame"] for row in rows(line.store_path, "SELECT frame FROM decisions")]
    assert sorted(names) == sorted(cell.name for cell in cells[:6])
    assert [row["frame"] for row in rows(line.store_path, "SELECT frame FROM faults")] == ["bad.png"]
    messages = lines(out)
    assert len({line["id"] for line in messages}) == 7 and {line["outcome"] for line in messages} >= {"fault"}


def test_a_file_that_grows_is_waited_for(running: Callable[..., Line], tmp_path: Path, cells: list[Path]) -> None:
    line = running(source=[folder(tmp_path, settle=0.4)])
    body = cells[0].read_bytes()
    with (tmp_path / "in" / "slow.png").open("wb") as file:
        for i in range(0, len(body), 1 + len(body) // 8):
            file.write(body[i : i + 1 + len(body) // 8])
            file.flush()
            threading.Event().wait(0.1)
    until(lambda: rows(line.store_path, "SELECT * FROM decisions"))
    assert rows(line.store_path, "SELECT * FROM faults") == []


@pytest.mark.parametrize("done", ["delete", "move"])
def test_a_decided_file_is_put_away(running: Callable[..., Line], tmp_path: Path, cells: list[Path], done: str) -> None:
    extra = {"move_to": tmp_path / "done"} if done == "move" else {}
    line = running(source=[folder(tmp_path, done=done, **extra)], store={"keep_passes": 1.0})
    for cell in cells[:4]:
        shutil.copy(cell, tmp_path / "in")
    until(lambda: not list((tmp_path / "in").iterdir()) and len(rows(line.store_path, "SELECT * FROM decisions")) == 4)
    for row in rows(line.store_path, "SELECT * FROM decisions"):
        assert decode(row["image"]).shape == (300, 300, 3)
    until(lambda: rows(line.store_path, "SELECT * FROM files") == [])


def test_a_region_that_does_not_fit(running: Callable[..., Line]) -> None:
    line = running(source=[{"name": "cam", "kind": "push", "roi": {"x": 8, "y": 4, "width": 16, "height": 8}}])
    assert line.submit(BLACK, None, "").frame.image.shape == (8, 16, 3)
    with pytest.raises(ImageError, match="does not fit a frame of 20x64"):
        line.submit(BLACK[:, :20], None, "")


def test_it_stops_after_everything_is_stored(running: Callable[..., Line]) -> None:
    line = running()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(line.submit, BLACK, None, str(i)) for i in range(12)]
        until(lambda: line.state().sources[0].frames > 3)
        assert line.stop()
        answered = [f.result().id for f in asked if f.exception() is None]
    assert {row["id"] for row in rows(line.store_path, "SELECT id FROM decisions")} == set(answered)
    with pytest.raises(Busy, match="the line stops"):
        line.submit(BLACK, None, "")
    with pytest.raises(Busy, match="is not running"):
        line.check_ready()


def test_frames_are_scored_one_by_one_where_it_is_asked_for(running: Callable[..., Line], cells: list[Path]) -> None:
    model = running(model={"threads": 2, "side_by_side": False}).model
    assert model.parallel == 1 and model._alone is model._together
    images = decode(cells[0])[np.newaxis]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(model.infer, [images, images])
    assert first.score == second.score


def test_a_frame_of_a_source_has_its_name(running: Callable[..., Line]) -> None:
    """A plug-in's source may leave the frame's own source out; it must not give another's."""
    line = running()
    pending = PendingFrame(Frame(np.zeros((16, 16, 3), np.uint8)), "default", "1")
    assert line._give("default", pending)
    assert pending.outcome.result(20).decision.source == "default"
    with pytest.raises(SourceError, match=r"source default gave a frame of .*'other'.*: give its own name"):
        line._give("default", PendingFrame(None, "other", "2", "damaged"))
