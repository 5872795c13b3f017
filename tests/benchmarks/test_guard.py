"""The guard's verdicts, and that its baseline names what it measures."""

import json
from pathlib import Path

import pytest

from ahl_runtime.bundle.bundle import Bundle
from benchmarks.guard import BOUND, judge, measure

BASELINE = Path(__file__).parents[2] / "benchmarks" / "baseline.json"


@pytest.mark.parametrize(("found", "good"), [(4.0, True), (4.0 / BOUND, True), (0.99 * 4.0 / BOUND, False)])
def test_half_as_fast_is_past_the_bound(found: float, good: bool) -> None:
    lines, verdict = judge({"a": found}, {"a": 4.0})
    assert verdict is good and lines[0].startswith(f"a: {found:.2f}, baseline 4.00: {'ok' if good else 'slower'}")


def test_a_ratio_that_is_gone_is_no_pass() -> None:
    lines, verdict = judge({"a": 1.0}, {"a": 1.0, "b": 2.0})
    assert not verdict and lines[1] == "b: only in the baseline: write the baseline again"


@pytest.mark.slow
def test_the_baseline_names_what_is_measured(full_bundle: Bundle) -> None:
    assert measure(full_bundle.path, seconds=0.05).keys() == json.loads(BASELINE.read_text()).keys()
