"""The guard's verdicts. What it measures is measured by `make guard`, which CI runs."""

import pytest

from benchmarks.guard import BOUND, judge


@pytest.mark.parametrize(("found", "good"), [(4.0, True), (4.0 / BOUND, True), (0.99 * 4.0 / BOUND, False)])
def test_half_as_fast_is_past_the_bound(found: float, good: bool) -> None:
    lines, verdict = judge({"a": found}, {"a": 4.0})
    assert verdict is good and lines[0].startswith(f"a: {found:.2f}, baseline 4.00: {'ok' if good else 'slower'}")


def test_a_ratio_that_is_gone_is_no_pass() -> None:
    lines, verdict = judge({"a": 1.0}, {"a": 1.0, "b": 2.0})
    assert not verdict and lines[1] == "b: only in the baseline: write the baseline again"
