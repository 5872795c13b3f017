"""The device's SQLite file: every decision, the operators' marks, and the marked images.

A decision's `id` is random and unique; messages carry it, so that a receiver detects repeats. The schema grows in
steps (`_STEPS`); opening a file of an older step upgrades it.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from ahl_runtime.core.errors import StoreError
from ahl_runtime.core.types import Decision

Label = Literal["good", "anomaly"]
Word = Literal["right", "wrong", "good", "anomaly"]

_APPLICATION = 0x41484C31  # "AHL1", in the file's header: marks the file as ours
_WAIT = 10.0  # seconds for another process's transaction

# Never change a released step: add a new one.
_STEPS = (
    (
        """CREATE TABLE decisions (
            id TEXT PRIMARY KEY,
            decided TEXT NOT NULL,     -- UTC, ISO 8601
            frame TEXT NOT NULL,
            source TEXT NOT NULL,
            captured TEXT,             -- UTC, ISO 8601, where the source says it
            image TEXT NOT NULL,       -- path of the file
            sha256 TEXT NOT NULL,      -- of the file
            score REAL NOT NULL,
            p_value REAL NOT NULL,
            threshold REAL,            -- NULL: none, nothing is rejected
            verdict TEXT NOT NULL CHECK (verdict IN ('pass', 'unsure', 'reject')),
            promise TEXT NOT NULL,
            bundle TEXT NOT NULL,      -- digest
            calibration TEXT NOT NULL, -- 'bundle' or the device's own
            engine TEXT NOT NULL
        )""",
        "CREATE INDEX decisions_by_time ON decisions (decided)",
        """CREATE TABLE images (
            sha256 TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            bytes BLOB NOT NULL
        )""",
        """CREATE TABLE marks (           -- the newest of a decision counts
            number INTEGER PRIMARY KEY,
            decision TEXT NOT NULL REFERENCES decisions (id),
            label TEXT NOT NULL CHECK (label IN ('good', 'anomaly')),
            note TEXT NOT NULL,
            who TEXT NOT NULL,
            marked TEXT NOT NULL
        )""",
        "CREATE INDEX marks_by_decision ON marks (decision)",
    ),
    # For a running line. A decision on a frame without a file has image '' if no image was kept.
    (
        """CREATE TABLE faults (            -- frames that could not be decided on
            id TEXT PRIMARY KEY,
            happened TEXT NOT NULL,
            source TEXT NOT NULL,
            frame TEXT NOT NULL,
            error TEXT NOT NULL
        )""",
        """CREATE TABLE files (             -- of watched folders: decided on, or a fault
            source TEXT NOT NULL,
            key TEXT NOT NULL,
            PRIMARY KEY (source, key)
        ) WITHOUT ROWID""",
        """CREATE TABLE outbox (            -- what sinks are to be told, in this order
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL,          -- of the decision or the fault
            outcome TEXT NOT NULL,
            body TEXT NOT NULL         -- JSON
        )""",
        "CREATE TABLE sinks (name TEXT PRIMARY KEY, sent INTEGER NOT NULL)",
        "CREATE TABLE states (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    ),
)

_LATEST = """
    SELECT d.*, m.label, m.note, m.who, m.marked FROM decisions d
    LEFT JOIN marks m ON m.number = (SELECT max(number) FROM marks WHERE decision = d.id)
"""
# One row for each image. If an image has several decisions and marks, the newest mark counts.
_FEEDBACK = """
    SELECT m.label, m.note, m.who, m.marked, d.id, d.verdict, d.score, d.bundle, d.image, i.sha256, i.bytes
    FROM marks m JOIN decisions d ON d.id = m.decision JOIN images i ON i.sha256 = d.sha256
    WHERE m.number IN (SELECT max(n.number) FROM marks n JOIN decisions e ON e.id = n.decision GROUP BY e.sha256)
    ORDER BY m.number
"""


@dataclass(frozen=True)
class Feedback:
    """A marked image. `about`: the marked decision and the mark, JSON-able."""

    label: Label
    sha256: str
    image: bytes
    about: dict[str, Any]


class Store:
    """An open store, a context manager; StoreError from every method. `create`: create a missing file.

    Each call is one transaction, on the disk when it returns. Other processes may read and write meanwhile (WAL).
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        if not create and not path.is_file():
            raise StoreError(f"{path}: no such store: ahl-runtime score --store writes one")
        with self._faults():
            self._db = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
        try:
            with self._faults():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def record(self, decision: Decision, image: Path, sha256: str, engine: str) -> str:
        """Store a decision on an image file; returns its id."""
        row = decision_row(new_id(), decision, str(image.absolute()), sha256, engine)
        with self._transaction():
            self._insert("decisions", row)
        return str(row["id"])

    def mark(self, decision: str, word: str, who: str, note: str = "") -> Label:
        """Mark a decision and store its image; returns the label of the image.

        "right" and "wrong" apply to a pass or a reject; "good" and "anomaly" to any decision. A later mark replaces
        this one. StoreError if there is no such decision, or if its file is missing or has changed.
        """
        found = self._one("SELECT verdict, image, sha256 FROM decisions WHERE id = ?", decision)
        if found is None:
            raise StoreError(f"{self.path}: no decision {decision!r}: see ahl-runtime feedback list")
        label = _label(word, found["verdict"], decision)
        kept = self._one("SELECT 1 FROM images WHERE sha256 = ?", found["sha256"])
        image = None if kept else _unchanged(Path(found["image"]), found["sha256"])
        with self._transaction():
            if image is not None:
                row = (found["sha256"], Path(found["image"]).name, image)
                self._db.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?)", row)
            mark = (decision, label, note, who, now())
            self._db.execute("INSERT INTO marks (decision, label, note, who, marked) VALUES (?, ?, ?, ?, ?)", mark)
        return label

    def decisions(self, *, marked: bool = False) -> Iterator[dict[str, Any]]:
        """Every decision with its newest mark (None: not marked), oldest first; JSON-able."""
        where = "WHERE m.label IS NOT NULL " if marked else ""
        with self._faults():
            for row in self._db.execute(f"{_LATEST} {where} ORDER BY d.decided, d.rowid"):
                yield dict(row)

    def feedback(self) -> Iterator[Feedback]:
        """Each marked image once, with its newest mark."""
        with self._faults():
            for row in self._db.execute(_FEEDBACK):
                about = dict(row)
                yield Feedback(about.pop("label"), about["sha256"], about.pop("bytes"), about)

    def _prepare(self) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA cache_size = -256")  # KiB: each thread of a line has a connection
        application, step = (
            int(self._db.execute(f"PRAGMA {p}").fetchone()[0]) for p in ("application_id", "user_version")
        )
        tables = int(self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if application != _APPLICATION and (application or step or tables):
            raise StoreError(f"{self.path}: an SQLite file of another program: choose another")
        if step > len(_STEPS):
            raise StoreError(f"{self.path}: schema {step}, this runtime knows up to {len(_STEPS)}: update ahl")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # a decision that was returned or sent survives a power cut
        if application == _APPLICATION and step == len(_STEPS):
            return
        with self._transaction():
            step = int(self._db.execute("PRAGMA user_version").fetchone()[0])  # another process may have been first
            for statements in _STEPS[step:]:
                for statement in statements:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(_STEPS)}")
            self._db.execute(f"PRAGMA application_id = {_APPLICATION}")

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        """Insert a row, within a transaction. `table` and the keys go into the SQL text: never pass user input."""
        self._db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f':{c}' for c in row)})", row)

    def _one(self, query: str, *values: str) -> sqlite3.Row | None:
        with self._faults():
            row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
            return row

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._faults():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}: check the file, its folder and their free space") from error


def new_id() -> str:
    """Random and unique, 16 hex digits."""
    return secrets.token_hex(8)


def decision_row(id: str, decision: Decision, image: str, sha256: str, engine: str) -> dict[str, Any]:
    """The row of a decision made now. `image`: an absolute path, or '' if no image is kept."""
    return {
        "id": id,
        "decided": now(),
        "frame": decision.frame,
        "source": decision.source,
        "captured": decision.captured.astimezone(UTC).isoformat() if decision.captured else None,
        "image": image,
        "sha256": sha256,
        "score": decision.score,
        "p_value": decision.p_value,
        "threshold": decision.threshold if math.isfinite(decision.threshold) else None,
        "verdict": decision.verdict,
        "promise": decision.promise,
        "bundle": decision.bundle,
        "calibration": decision.calibration,
        "engine": engine,
    }


def _label(word: str, verdict: str, decision: str) -> Label:
    if word not in get_args(Word):
        raise StoreError(f"{word!r} is not a mark: choose {', '.join(get_args(Word))}")
    if word in ("good", "anomaly"):
        return "good" if word == "good" else "anomaly"
    if verdict == "unsure":
        raise StoreError(f"decision {decision} is unsure, neither right nor wrong: mark it good or anomaly")
    return "good" if (verdict == "pass") == (word == "right") else "anomaly"


def _unchanged(path: Path, sha256: str) -> bytes:
    if path == Path():
        raise StoreError("the image of this decision was not kept: the decision can no longer be marked")
    try:
        body = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path}: the image cannot be read ({error.strerror or error}): restore the file, then mark it"
        ) from error
    if hashlib.sha256(body).hexdigest() != sha256:
        raise StoreError(f"{path}: the image has changed since the decision: restore the file, then mark it")
    return body


def now() -> str:
    """The present time in UTC, ISO 8601, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
