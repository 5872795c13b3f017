"""The store of a running line: one transaction writes each outcome once, and its message for the sinks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ahl_runtime.core.types import Decision
from ahl_runtime.line.settings import Outcome
from ahl_runtime.line.store.store import Store, decision_row, now

_CHUNK = 1000  # rows deleted in one transaction; others can write between two of them


@dataclass(frozen=True, eq=False)
class Entry:
    """The outcome of a frame. `decision`: None for a fault; `error` then says why.

    `key`: the file of a watched folder, '' for other frames. `image`: absolute path of the kept image, or ''.
    """

    id: str
    source: str
    frame: str
    decision: Decision | None = None
    error: str = ""
    engine: str = ""
    key: str = ""
    image: str = ""
    sha256: str = ""

    @property
    def outcome(self) -> Outcome:
        """The verdict, or "fault" without a decision."""
        return self.decision.verdict if self.decision else "fault"


@dataclass(frozen=True)
class Message:
    """A message for sinks. `number`: its place in the order. `id`: the decision's id; a repeat has the same id."""

    number: int
    id: str
    outcome: Outcome
    fields: dict[str, Any]

    @property
    def text(self) -> str:
        """The fields as one line of JSON."""
        return json.dumps(self.fields, allow_nan=False)


class Journal(Store):
    """A store for one thread, which opens it. StoreError from every method."""

    def relaxed(self) -> Self:
        """Commit without waiting for the disk: a power cut may lose commits. Only for work that may be repeated."""
        with self._faults():
            self._db.execute("PRAGMA synchronous = NORMAL")
        return self

    def append(self, entries: Iterable[Entry], *, notify: bool) -> set[str]:
        """Store all entries or none, on the disk when this returns. `notify`: also store messages for the sinks.

        Entries whose file already has an outcome are not stored again; returns their ids.
        """
        repeated = set()
        with self._transaction():
            for entry in entries:
                if entry.key and self._known(entry):
                    repeated.add(entry.id)
                    continue
                row = _row(entry)
                self._insert("decisions" if entry.decision else "faults", row)
                if notify:
                    body = json.dumps(_message_fields(entry, row), allow_nan=False)
                    self._insert("outbox", {"id": entry.id, "outcome": entry.outcome, "body": body})
        return repeated

    def _known(self, entry: Entry) -> bool:
        done = self._db.execute("INSERT OR IGNORE INTO files VALUES (?, ?)", (entry.source, entry.key))
        return done.rowcount == 0

    def files(self, source: str) -> set[str]:
        """The keys of a folder's files that have an outcome."""
        with self._faults():
            return {row["key"] for row in self._db.execute("SELECT key FROM files WHERE source = ?", (source,))}

    def forget_files(self, source: str, keys: Sequence[str]) -> None:
        """Delete the keys of files that are no longer in the folder."""
        if keys:
            with self._transaction():
                self._db.executemany("DELETE FROM files WHERE source = ? AND key = ?", [(source, k) for k in keys])

    def join(self, sinks: Sequence[str]) -> dict[str, int]:
        """Set the line's sinks; a new one gets messages from now on. Returns the messages not sent to removed sinks."""
        with self._transaction():
            rows = self._db.execute(
                "SELECT name, (SELECT count(*) FROM outbox WHERE number > sent) AS waiting FROM sinks"
            )
            left = {row["name"]: row["waiting"] for row in rows if row["name"] not in sinks}
            self._db.executemany("DELETE FROM sinks WHERE name = ?", [(name,) for name in left])
            newest = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)"
            self._db.executemany(f"INSERT OR IGNORE INTO sinks VALUES (?, ({newest}))", [(name,) for name in sinks])
        return left

    def waiting(self, sink: str, most: int) -> list[Message]:
        """The next messages for a sink, in order."""
        query = """SELECT number, id, outcome, body FROM outbox
            WHERE number > (SELECT sent FROM sinks WHERE name = ?) ORDER BY number LIMIT ?"""
        with self._faults():
            return [
                Message(row["number"], row["id"], row["outcome"], json.loads(row["body"]))
                for row in self._db.execute(query, (sink, most))
            ]

    def depth(self, sink: str) -> int:
        """The number of messages that a sink has not received yet."""
        query = "SELECT count(*) AS n FROM outbox WHERE number > (SELECT sent FROM sinks WHERE name = ?)"
        row = self._one(query, sink)
        return int(row["n"]) if row else 0

    def sent(self, sink: str, number: int) -> None:
        """Record that a sink has received all messages up to `number`."""
        with self._transaction():
            self._db.execute("UPDATE sinks SET sent = max(sent, ?) WHERE name = ?", (number, sink))

    def state(self, name: str) -> str | None:
        """The text that `put_state` saved under this name, or None."""
        row = self._one("SELECT value FROM states WHERE name = ?", name)
        return str(row["value"]) if row else None

    def put_state(self, name: str, value: str | None) -> None:
        """Save a text under a name; None deletes it."""
        with self._transaction():
            if value is None:
                self._db.execute("DELETE FROM states WHERE name = ?", (name,))
            else:
                self._db.execute("INSERT OR REPLACE INTO states VALUES (?, ?)", (name, value))

    def add_image(self, id: str, image: str, sha256: str) -> None:
        """Add the image of a decision that has none yet."""
        with self._transaction():
            self._db.execute(
                "UPDATE decisions SET image = ?, sha256 = ? WHERE id = ? AND image = ''", (image, sha256, id)
            )

    def marked_good(self, ids: Sequence[str]) -> set[str]:
        """Those of these decisions whose newest mark is good, or that have no mark."""
        query = """SELECT label FROM marks WHERE decision = ? ORDER BY number DESC LIMIT 1"""
        found = {id: self._one(query, id) for id in ids}
        return {id for id, row in found.items() if row is None or row["label"] == "good"}

    def prune(self, before: str | None) -> int:
        """Delete messages that every sink received; returns the number of deleted rows.

        With `before` (UTC, ISO 8601), also delete older faults and older decisions without a mark.
        """
        sent = "DELETE FROM outbox WHERE number IN (SELECT number FROM outbox WHERE number <= " + (
            "(SELECT coalesce(min(sent), 9223372036854775807) FROM sinks) LIMIT ?)"
        )
        gone = self._chunks(sent)
        if before is not None:
            gone += self._chunks(
                "DELETE FROM decisions WHERE rowid IN (SELECT rowid FROM decisions d WHERE decided < ? "
                "AND NOT EXISTS (SELECT 1 FROM marks WHERE decision = d.id) LIMIT ?)",
                before,
            )
            gone += self._chunks(
                "DELETE FROM faults WHERE rowid IN (SELECT rowid FROM faults WHERE happened < ? LIMIT ?)", before
            )
        return gone

    def _chunks(self, statement: str, *values: str) -> int:
        total = 0
        while True:
            with self._transaction():
                gone = self._db.execute(statement, (*values, _CHUNK)).rowcount
            total += gone
            if gone < _CHUNK:
                return total


def _row(entry: Entry) -> dict[str, Any]:
    if entry.decision is None:
        return {
            "id": entry.id,
            "happened": now(),
            "source": entry.source,
            "frame": entry.frame,
            "error": entry.error,
        }
    return decision_row(entry.id, entry.decision, entry.image, entry.sha256, entry.engine)


def _message_fields(entry: Entry, row: dict[str, Any]) -> dict[str, Any]:
    """The fields of a message: the outcome in one word, and the stored row without `promise`."""
    return {"outcome": entry.outcome, **{k: v for k, v in row.items() if k != "promise"}}
