"""The device's store: what was decided and what was said of it, through restarts, kills, full disks and two writers."""

import hashlib
import math
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ahl_runtime.core.errors import StoreError
from ahl_runtime.core.types import Decision
from ahl_runtime.line.store.store import Store

DECISION = Decision(
    verdict="reject",
    score=0.7,
    p_value=0.02,
    threshold=0.5,
    promise="rejects at most 1%",
    anomaly_map=np.zeros((2, 2), np.float32),
    head_scores=np.zeros(2, np.float32),
    frame="1.png",
    source="left",
    captured=datetime(2024, 5, 1, 12, tzinfo=UTC),
    bundle="d" * 64,
    calibration="left.onnxruntime.0002",
)


@pytest.fixture
def image(tmp_path: Path, cells: list[Path]) -> Path:
    path = tmp_path / "1.png"
    path.write_bytes(cells[0].read_bytes())
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept(store: Store, image: Path, **fields: object) -> str:
    return store.record(replace(DECISION, **fields), image, digest(image), "onnxruntime")  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line.sqlite"


def test_decisions_come_back_after_a_restart(path: Path, image: Path) -> None:
    with Store(path, create=True) as store:
        ids = [kept(store, image), kept(store, image, threshold=math.inf, verdict="pass", captured=None)]
    with Store(path) as store:
        first, second = store.decisions()
        assert list(store.decisions(marked=True)) == []
    assert [first["id"], second["id"]] == ids and len(set(ids)) == 2
    assert first["captured"] == "2024-05-01T12:00:00+00:00" and second["captured"] is None
    assert (first["threshold"], second["threshold"]) == (0.5, None)
    assert (first["image"], first["sha256"]) == (str(image), digest(image))
    assert (first["calibration"], first["bundle"], first["label"]) == (DECISION.calibration, DECISION.bundle, None)


@pytest.mark.parametrize(
    ("verdict", "word", "label"),
    [
        ("pass", "right", "good"),
        ("pass", "wrong", "anomaly"),
        ("reject", "right", "anomaly"),
        ("reject", "wrong", "good"),
        ("unsure", "good", "good"),
        ("unsure", "anomaly", "anomaly"),
        ("pass", "anomaly", "anomaly"),
    ],
)
def test_what_a_mark_means(path: Path, image: Path, verdict: str, word: str, label: str) -> None:
    with Store(path, create=True) as store:
        decision = kept(store, image, verdict=verdict)
        assert store.mark(decision, word, "ann", "why") == label
        (row,) = store.decisions(marked=True)
        assert (row["label"], row["who"], row["note"]) == (label, "ann", "why")


@pytest.mark.parametrize("word", ["right", "wrong"])
def test_an_unsure_decision_is_neither(path: Path, image: Path, word: str) -> None:
    with Store(path, create=True) as store:
        decision = kept(store, image, verdict="unsure")
        with pytest.raises(StoreError, match="mark it good or anomaly"):
            store.mark(decision, word, "ann")
        assert list(store.feedback()) == []


def test_the_image_is_kept_when_it_is_marked(path: Path, image: Path) -> None:
    body = image.read_bytes()
    with Store(path, create=True) as store:
        one, two = kept(store, image), kept(store, image)
        store.mark(one, "wrong", "ann")
        image.unlink()
        store.mark(two, "right", "bob")  # it is kept already
        (found,) = store.feedback()  # the image once, with the newest mark
    assert (found.label, found.image, found.about["who"], found.about["id"]) == ("anomaly", body, "bob", two)


def test_a_changed_mind_counts(path: Path, image: Path) -> None:
    with Store(path, create=True) as store:
        decision = kept(store, image)
        for word in ("right", "wrong"):
            store.mark(decision, word, "ann")
        assert [f.label for f in store.feedback()] == ["good"]
        assert [row["label"] for row in store.decisions()] == ["good"]


def test_an_image_that_is_gone_or_changed_cannot_be_marked(path: Path, image: Path) -> None:
    with Store(path, create=True) as store:
        decision = kept(store, image)
        image.write_bytes(b"another")
        with pytest.raises(StoreError, match="has changed since the decision"):
            store.mark(decision, "right", "ann")
        image.unlink()
        with pytest.raises(StoreError, match="No such file"):
            store.mark(decision, "right", "ann")
        with pytest.raises(StoreError, match="no decision 'x'"):
            store.mark("x", "right", "ann")
        assert list(store.decisions(marked=True)) == []


def test_two_writers_at_once(path: Path, image: Path) -> None:
    Store(path, create=True).__exit__(None, None, None)

    def work(_: int) -> list[str]:
        with Store(path) as store:
            return [kept(store, image) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        ids = [i for some in pool.map(work, range(4)) for i in some]
    with Store(path) as store:
        assert sorted(row["id"] for row in store.decisions()) == sorted(ids) and len(set(ids)) == 200


def test_several_processes_may_make_it(path: Path) -> None:
    code = (
        "import pathlib, sys; from ahl_runtime.line.store.store import Store; "
        "Store(pathlib.Path(sys.argv[1]), create=True)"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.PIPE) for _ in range(4)]
    assert [(p.communicate()[1], p.returncode) for p in started] == [(b"", 0)] * 4
    with Store(path) as store:
        assert list(store.decisions()) == []


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_store import DECISION, Store, kept
with Store(Path(sys.argv[1]), create=True) as store:
    for _ in range(1000):
        print(kept(store, Path(sys.argv[2])), flush=True)
"""


def test_printed_decisions_survive_a_kill(path: Path, image: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(path), str(image), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        printed = [running.stdout.readline().strip() for _ in range(20)]
        running.kill()
    with Store(path) as store:
        found = [row["id"] for row in store.decisions()]
    assert found[:20] == printed and len(found) < 1000


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_store import DECISION, Store, kept
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
with Store(Path(sys.argv[1])) as store:
    while True:
        kept(store, Path(sys.argv[2]))
"""


def test_a_file_that_cannot_grow_loses_nothing(path: Path, image: Path) -> None:
    with Store(path, create=True) as store:
        decision = kept(store, image)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(image), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "StoreError" in done.stderr.splitlines()[-1] and "free space" in done.stderr, done.stderr
    with Store(path) as store:
        assert next(store.decisions())["id"] == decision
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_files_that_are_no_store(path: Path, tmp_path: Path, image: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        Store(path)
    assert not path.exists()
    with pytest.raises(StoreError, match="unable to open"):
        Store(tmp_path / "gone" / "x.sqlite", create=True)
    with pytest.raises(StoreError, match="not a database"):
        Store(image)
    before = image.read_bytes()
    with pytest.raises(StoreError, match="not a database"):
        Store(image, create=True)
    assert image.read_bytes() == before
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match="of another program"):
        Store(path, create=True)


def test_a_newer_schema_says_what_to_do(path: Path) -> None:
    Store(path, create=True).__exit__(None, None, None)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError, match=r"schema 9, this runtime knows up to \d+: update ahl"):
        Store(path)


def test_it_keeps_a_write_ahead_log(path: Path) -> None:
    with Store(path, create=True), sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
