"""The pages on calibration: the examples run, in order, as one program; the tables are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES, TABLES = DOCS / "reference" / "calibration.md", DOCS / "results" / "calibration.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", EXAMPLES.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 5
    exec(compile("\n".join(blocks), str(EXAMPLES), "exec"), {})  # noqa: S102


def test_the_tables_are_written() -> None:
    page = TABLES.read_text(encoding="utf-8")
    for name, command in (
        ("promises", "benchmarks.simulate"),
        ("drift", "benchmarks.simulate"),
        ("tail", "benchmarks.simulate"),
        ("elpv", "elpv"),
        ("kept", "benchmarks.false_rejects"),
    ):
        table = page.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
        assert "Written by" in table and command in table
        assert "| NO |" not in table
