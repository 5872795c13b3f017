"""A bundle, its device calibration and a store that an earlier version made still work."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.line.line import Line
from ahl_runtime.line.store.store import Store
from ahl_runtime.score.scoring import Scorer

MADE = Path(__file__).parent / "data" / "made_before"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "made", ignore=shutil.ignore_patterns("README")))


def test_its_scores_and_both_calibrations_are_as_they_were(made: Path, cells: list[Path]) -> None:
    bundle = open_bundle(made / "cells.ahl")
    with Store(made / "line.sqlite") as store:
        rows = list(store.decisions())
    exported, own = Scorer(bundle), Scorer(bundle, source="default")
    for row in rows:
        scorer = exported if row["calibration"] == "bundle" else own
        cell = next(c for c in cells if row["frame"].endswith(c.name))
        found = scorer.score(decode(cell))
        assert (found.verdict, found.calibration, found.bundle) == (row["verdict"], row["calibration"], row["bundle"])
        assert [found.score, found.p_value, found.threshold] == pytest.approx(
            [row["score"], row["p_value"], row["threshold"]], abs=1e-6
        )
    assert {row["calibration"] for row in rows} == {"bundle", own.rule.name} and len(rows) == 45


def test_a_line_goes_on_with_it(made: Path, running: Callable[..., Line], cells: list[Path]) -> None:
    sink = {"kind": "jsonl", "name": "file", "path": made / "told.jsonl"}
    line = running(model={"bundle": made / "cells.ahl"}, store={"path": made / "line.sqlite"}, sink=[sink])
    decision = line.submit(np.zeros((64, 64, 3), np.uint8)).decision
    assert decision.verdict == "reject" and decision.calibration == line.rule("default").name != "bundle"
    with Store(made / "line.sqlite") as store:
        assert len(list(store.decisions())) == 46
