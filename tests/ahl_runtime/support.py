"""What tests of lines ask again and again: has it happened, and what does the store hold?"""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ahl_runtime.line.line import Line


def until(happened: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What it gives, as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := happened():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def rows(store: Path, query: str, *values: object) -> list[dict[str, Any]]:
    """What the store holds."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query, values)]


def lines(path: Path) -> list[dict[str, Any]]:
    """Of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def all_accounted(line: Line, told: Path) -> int:
    """Stops the line: each frame that it accepted has one outcome in the store, and a sink of JSON lines has each, in
    order. How many frames.
    """
    assert line.stop()
    accepted = sum(source.frames - source.dropped for source in line.state().sources)
    kept = "SELECT id FROM decisions UNION ALL SELECT id FROM faults"
    stored = [row["id"] for row in rows(line.store_path, kept)]
    heard = list(dict.fromkeys(message["id"] for message in lines(told)))
    assert len(stored) == accepted and sorted(stored) == sorted(heard)
    for table in ("decisions", "faults"):
        order = [row["id"] for row in rows(line.store_path, f"SELECT id FROM {table} ORDER BY rowid")]
        assert [id for id in heard if id in set(order)] == order
    return accepted
