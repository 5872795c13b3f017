"""One line writes to a store; a second one is refused and changes nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ahl_runtime.core.errors import StoreError
from ahl_runtime.line.config import LineConfig
from ahl_runtime.line.line import Line
from ahl_runtime.line.store.lock import StoreLock
from tests.ahl_runtime.support import rows


def test_a_second_line_is_refused_and_the_first_keeps_its_sinks(
    config: Callable[..., LineConfig], tmp_path: Path
) -> None:
    sink = {"kind": "jsonl", "name": "mes", "path": tmp_path / "out.jsonl"}
    with Line(config(sink=[sink])) as line:
        before = rows(line.store_path, "SELECT * FROM sinks")
        with pytest.raises(StoreError, match="another line uses it: stop that line, or give this one another store"):
            Line(config())
        assert before and rows(line.store_path, "SELECT * FROM sinks") == before
    with Line(config()):
        pass


def test_a_killed_lines_store_is_free(tmp_path: Path) -> None:
    store = tmp_path / "decisions.sqlite"
    code = f"""
import os, signal
from pathlib import Path
from ahl_runtime.line.store.lock import StoreLock
lock = StoreLock(Path({str(store)!r}))
print("locked", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holding:
        assert holding.stdout is not None and holding.stdout.readline() == "locked\n"
        with pytest.raises(StoreError, match="another line uses it"):
            StoreLock(store)
        holding.kill()
    StoreLock(store).release()
