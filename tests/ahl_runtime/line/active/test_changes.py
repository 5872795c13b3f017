"""What changes while a line runs: calibrations, the drift alarm, the bundle; what is deleted in time."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahl_runtime.bundle.device_calibration import Change
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import BundleError, EngineError
from ahl_runtime.line.active.shadow import tail
from ahl_runtime.line.line import Line
from ahl_runtime.line.store.images import Images
from ahl_runtime.line.store.journal import Journal
from ahl_runtime.line.store.store import Store
from ahl_runtime.service.config import LineConfig
from calibration import ScoresError
from tests.ahl_runtime.support import rows, until

WHO = Change("ann", "a new lamp", {})


@pytest.fixture
def line(running: Callable[..., Line], make_bundle: Callable[..., Path]) -> Line:
    """On a bundle of its own: calibrations lie beside it."""
    return running(model={"bundle": make_bundle()})


def darker(cells: list[Path], by: float) -> list[np.ndarray]:
    return [(decode(cell) * by).astype(np.uint8) for cell in cells]


def test_a_calibration_from_the_newest_frames(line: Line, cells: list[Path]) -> None:
    with pytest.raises(ScoresError, match="wait for more"):
        line.propose("default", 40)
    dark = darker(cells, 0.5)
    rejected = [line.submit(image).decision.verdict for image in dark].count("reject")
    assert rejected > 20
    proposal = line.propose("default", 40)
    assert (proposal.by_old["reject"], proposal.new.n) == (rejected, 40)
    name = line.adopt("default", proposal, WHO)
    assert line.rule("default").name == name == "default.onnxruntime.0001"
    again = [line.submit(image).decision for image in dark]
    assert {d.calibration for d in again} == {name}
    assert [d.verdict for d in again].count("reject") == proposal.by_new["reject"] < rejected
    assert line.undo("default", WHO) == name
    assert line.submit(dark[0]).decision.calibration == "bundle"


def test_frames_marked_as_anomalies_calibrate_nothing(line: Line, cells: list[Path]) -> None:
    found = [line.submit(decode(cell)) for cell in cells]
    black = line.submit(np.zeros((64, 64, 3), np.uint8))
    with Store(line.store_path) as store:
        store.mark(black.id, "anomaly", "ann")
    proposal = line.propose("default", 100)
    assert proposal.new.n == 40 and max(proposal.new.scores) == max(r.decision.score for r in found)


def test_drift_alarms_survives_a_restart_and_is_reset(
    config: Callable[..., LineConfig], make_bundle: Callable[..., Path], cells: list[Path]
) -> None:
    settings = config(model={"bundle": make_bundle()})
    with Line(settings) as line:
        for image in darker(cells * 3, 0.3):
            line.submit(image)
        drift = line.state().sources[0].drift
        assert drift.state == "alarm" and "score rose" in drift.said
    with Line(settings) as line:
        assert line.state().sources[0].drift == drift
        line.reset_drift("default")
        assert line.state().sources[0].drift.state == "calm"


@contextmanager
def traffic(line: Line, images: list[np.ndarray]) -> Iterator[list[Any]]:
    """Frames without a pause, from two clients; what became of each."""
    results: list[Any] = []
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            for image in images:
                try:
                    results.append(line.submit(image))
                except Exception as error:
                    results.append(error)

    with ThreadPoolExecutor(2) as pool:
        sending = [pool.submit(send) for _ in range(2)]
        try:
            yield results
        finally:
            over.set()
            for one in sending:
                one.result()


def test_a_bundle_is_swapped_without_losing_a_frame(
    running: Callable[..., Line], config: Callable[..., LineConfig], make_bundle: Callable[..., Path], cells: list[Path]
) -> None:
    first, second = make_bundle("a.ahl"), make_bundle("b.ahl", {"name": "newer"})
    line = running(model={"bundle": first})
    old = line.model.digest
    with traffic(line, [decode(cell) for cell in cells[:10]]) as results:
        until(lambda: len(results) > 20)
        line.deploy(second)
        count = len(results)
        until(lambda: len(results) > count + 20)
    assert not [r for r in results if isinstance(r, Exception)]
    assert line.model.name == "b" and line.model.digest != old
    assert {r.decision.bundle for r in results} == {old, line.model.digest}
    line.stop()
    assert len(rows(line.store_path, "SELECT id FROM decisions")) == len(results)
    assert running(model={"bundle": first}).model.name == "b"  # also after a restart


def test_a_bundle_that_rejects_what_is_good_is_refused(
    line: Line, make_bundle: Callable[..., Path], parts: Any, cells: list[Path]
) -> None:
    decision = {**parts[0]["artefacts"][0]["decision"], "threshold": 0.1, "unsure_threshold": 0.1}
    strict = make_bundle("strict.ahl", first={"decision": decision})
    refused = pytest.raises(BundleError, match=r"refused: it rejects \d+ of \d+ frames that pass now")
    with traffic(line, [decode(cell) for cell in cells[:10]]) as results, refused:
        line.deploy(strict)
    assert line.model.name == "cells" and not [r for r in results if isinstance(r, Exception)]


@pytest.mark.parametrize("kind", ["missing", "damaged", "scores otherwise"])
def test_a_bundle_that_is_not_sound_is_refused(
    line: Line, make_bundle: Callable[..., Path], parts: Any, kind: str
) -> None:
    reference = [{**r, "score": r["score"] + 0.1} for r in parts[0]["artefacts"][0]["reference"]]
    path = make_bundle("other.ahl", first={"reference": reference} if kind == "scores otherwise" else {})
    if kind == "missing":
        path.unlink()
    elif kind == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((BundleError, EngineError)):
        line.deploy(path)
    assert line.submit(np.zeros((16, 16, 3), np.uint8)).decision.bundle == line.model.digest


@pytest.mark.slow
def test_a_bundle_that_fails_later_is_rolled_back(
    line: Line, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ahl_runtime.line.active.owner._SHADOW_SECONDS", 0.1)
    line.deploy(make_bundle("b.ahl", {"name": "newer"}))
    assert line.model.name == "b"

    def failing(images: np.ndarray, **_: bool) -> Any:
        raise EngineError("the device is lost")

    line.model.infer = failing  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        line.submit(np.zeros((16, 16, 3), np.uint8))
    assert line.submit(np.zeros((16, 16, 3), np.uint8)).decision.verdict == "reject"
    assert line.model.name == "cells" and "cells is active again: b was rolled back" in "".join(line.state().faults)


@pytest.mark.slow
def test_a_bundle_whose_reject_rate_leaves_the_promise_is_rolled_back(
    line: Line, make_bundle: Callable[..., Path], parts: Any, cells: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ahl_runtime.line.active.owner._SHADOW_SECONDS", 0.1
    )  # no frame comes meanwhile: nothing to see
    decision = {**parts[0]["artefacts"][0]["decision"], "threshold": 0.1, "unsure_threshold": 0.1}
    for cell in cells:
        line.submit(decode(cell))
    line.deploy(make_bundle("strict.ahl", first={"decision": decision}))
    verdicts = [line.submit(decode(cells[i % 40])).decision.verdict for i in range(30)]
    assert verdicts[:3] == ["reject"] * 3 and verdicts[-15:].count("reject") < 5
    assert line.model.name == "cells"


def test_a_bundle_replaced_during_load(line: Line, make_bundle: Callable[..., Path]) -> None:
    """Whatever is read is whole: one bundle or the other, or a refusal."""
    path = make_bundle("b.ahl", {"name": "one"})
    bodies = [path.read_bytes(), make_bundle("c.ahl", {"name": "another"}).read_bytes()]
    over = threading.Event()

    def replace() -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            aside = path.with_name(".b.part")
            aside.write_bytes(bodies[turn % 2])
            aside.rename(path)
            if turn % 5 == 0:
                path.write_bytes(bodies[0][: len(bodies[0]) // 2])

    from ahl_runtime.line.active.loaded import LoadedBundle

    replacing = threading.Thread(target=replace)
    replacing.start()
    digests = set()
    try:
        end = time.monotonic() + 20
        while len(digests) < 2 and time.monotonic() < end:
            try:
                digests.add(LoadedBundle(line.config.model, path, ["default"]).digest)
            except BundleError:
                continue
    finally:
        over.set()
        replacing.join()
    assert 1 <= len(digests) <= 2


def test_the_tail_of_a_binomial() -> None:
    from scipy.stats import binom

    for k, n, p in ((1, 10, 0.05), (7, 50, 0.01), (50, 50, 0.9), (3, 200, 0.1)):
        assert tail(k, n, p) == pytest.approx(binom.sf(k - 1, n, p), rel=1e-9)
    assert tail(0, 10, 0.1) == 1.0 and tail(1, 10, 0.0) == 0.0 and tail(3, 3, 1.0) == 1.0


def test_images_go_by_age_then_by_bytes(config: Callable[..., LineConfig], tmp_path: Path) -> None:
    part = config(store={"path": tmp_path / "line.sqlite", "max_age": 10, "max_bytes": 3000}).store
    for i in range(6):
        path = part.images / f"2026010{i}" / f"{i}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1000))
        days = 20 if i < 2 else 1
        os.utime(path, (time.time() - 86400 * days,) * 2)
    assert Images(part).prune(by_age=False) == 3
    assert sorted(p.name for p in part.images.glob("*/*")) == ["3.png", "4.png", "5.png"]
    os.utime(part.images / "20260103" / "3.png", (0, 0))
    assert Images(part).prune() == 1 and len(list(part.images.iterdir())) == 2


def test_old_decisions_go_but_for_marked_ones(line: Line) -> None:
    ids = [line.submit(np.zeros((16, 16, 3), np.uint8)).id for _ in range(3)]
    with Store(line.store_path) as store:
        store.mark(ids[1], "right", "ann")
    with Journal(line.store_path) as journal:
        assert journal.prune((datetime.now(UTC) - timedelta(days=1)).isoformat()) == 0
        assert journal.prune((datetime.now(UTC) + timedelta(days=1)).isoformat()) == 2
    assert [row["id"] for row in rows(line.store_path, "SELECT id FROM decisions")] == [ids[1]]


def test_messages_that_every_sink_received_are_deleted(config: Callable[..., LineConfig], tmp_path: Path) -> None:
    sinks = [{"name": n, "kind": "jsonl", "path": tmp_path / n / "out.jsonl"} for n in ("a", "b")]
    (tmp_path / "a").mkdir()
    with Line(config(sink=sinks)) as line:
        for _ in range(4):
            line.submit(np.zeros((16, 16, 3), np.uint8))
        until(lambda: len((tmp_path / "a" / "out.jsonl").read_text().splitlines()) == 4)
        with Journal(line.store_path) as journal:
            assert journal.prune(None) == 0 and journal.depth("b") == 4
        (tmp_path / "b").mkdir()
        until(lambda: not line.state().faults)
        with Journal(line.store_path) as journal:
            assert until(lambda: journal.prune(None)) == 4
        line.submit(np.zeros((16, 16, 3), np.uint8))
        until(lambda: len((tmp_path / "b" / "out.jsonl").read_text().splitlines()) == 5)


def test_a_store_of_the_step_before_is_brought_up_to_date(tmp_path: Path) -> None:
    from ahl_runtime.line.store import store

    path = tmp_path / "line.sqlite"
    with sqlite3.connect(path) as db:
        for statement in store._STEPS[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute(f"PRAGMA application_id = {store._APPLICATION}")
    with Journal(path) as journal:
        assert journal.join(["a"]) == {} and journal.depth("a") == 0
