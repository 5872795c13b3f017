"""Decisions read back from the store, the newest first, a page at a time. Nothing is written here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ahl_runtime.core.errors import StoreError

_ROWS = """
    SELECT d.*, m.label, m.note, m.who, m.marked FROM decisions d
    LEFT JOIN marks m ON m.number = (SELECT max(number) FROM marks WHERE decision = d.id)
"""


def page(
    store: Path, limit: int, *, before: str | None = None, verdict: str | None = None, source: str | None = None
) -> list[dict[str, Any]]:
    """At most `limit` decisions taken before the decision `before`, each with its newest mark. StoreError."""
    with _opened(store) as db:
        row = db.execute("SELECT rowid FROM decisions WHERE id = ?", (before,)).fetchone() if before else None
        if before and row is None:
            raise StoreError(f"no decision {before!r} to go on from")
        conditions = {
            "d.rowid < :before": row["rowid"] if row else None,
            "d.verdict = :verdict": verdict,
            "d.source = :source": source,
        }
        chosen = [c for c, value in conditions.items() if value is not None]
        where = f"WHERE {' AND '.join(chosen)}" if chosen else ""
        values = {"before": row["rowid"] if row else None, "verdict": verdict, "source": source, "limit": limit}
        return [dict(r) for r in db.execute(f"{_ROWS} {where} ORDER BY d.rowid DESC LIMIT :limit", values)]


def one(store: Path, decision: str) -> dict[str, Any] | None:
    """A decision with its newest mark, or None. StoreError."""
    with _opened(store) as db:
        row = db.execute(f"{_ROWS} WHERE d.id = ?", (decision,)).fetchone()
        return dict(row) if row else None


def kept_image(store: Path, sha256: str) -> bytes | None:
    """A marked image's bytes, which the store itself keeps. StoreError."""
    with _opened(store) as db:
        row = db.execute("SELECT bytes FROM images WHERE sha256 = ?", (sha256,)).fetchone()
        return bytes(row["bytes"]) if row else None


@contextmanager
def _opened(store: Path) -> Iterator[sqlite3.Connection]:
    try:
        address = f"file:{quote(str(store.absolute()))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=5.0)) as db:
            db.row_factory = sqlite3.Row
            yield db
    except sqlite3.Error as error:
        raise StoreError(f"{store}: {error}: check the file and its folder") from error
