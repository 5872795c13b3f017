"""The simulation: its laws are exact, it can fail, and it writes where it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import simulate
from benchmarks.simulate import LAWS, Law
from calibration import SettingsError


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_the_laws_know_their_own_tails(law: Law) -> None:
    s = law.draw(np.random.default_rng(0), (1, 200_000))[0]
    for q in (0.5, 0.9, 0.99):
        x = float(np.quantile(s, q)) if "ties" not in law.name else float(np.round(2 * np.quantile(s, q)) / 2)
        assert (s > x).mean() == pytest.approx(law.above(x), abs=0.005)


@pytest.mark.parametrize("n", [50, 100, 300])
def test_promises_hold_in_a_short_run(n: int) -> None:
    for law in LAWS:
        for alpha in (0.05, 0.01):
            assert simulate.promise_kept(law, n, alpha, 400, seed=1).holds


def test_a_broken_promise_is_noticed() -> None:
    # Test frames whose scores lie a little higher than the calibration's.
    drifted = Law("drifted", LAWS[0].draw, lambda x: LAWS[0].above(x - 0.5))
    kept = simulate.promise_kept(drifted, 300, 0.05, 400, seed=1)
    assert not kept.holds
    assert kept.mean_rate > 0.05


def test_the_tail_reaches_about_the_rate_that_it_says() -> None:
    kept = simulate.tail_kept(LAWS[1], 80, 0.01, 60, seed=0)
    assert 0.5 * kept.claimed_rate < kept.mean_rate < 2 * kept.claimed_rate
    assert kept.inside > 0.8


def test_ranks_in_a_fixed_set_break_the_bound_and_a_growing_bag_does_not() -> None:
    assert simulate.false_alarms(300, 1, 100, 1500, seed=0) <= 5
    assert simulate.false_alarms(300, 1, 100, 1500, seed=0, fixed=True) > 20


def test_larger_shifts_are_found_sooner() -> None:
    small, large = (np.median(simulate.delays(shift, 200, 40, seed=0)) for shift in (0.5, 2.0))
    assert large < small < 400


def test_it_writes_between_the_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- promises -->\nstale\n<!-- /promises -->\nb\n"
        "<!-- tail -->\n<!-- /tail -->\n<!-- drift -->\n<!-- /drift -->\nc\n"
    )
    words = ["--seed", "1", "--repetitions", "300", "--streams", "10", "--frames", "20", "--write", str(page)]
    assert simulate.main(words) == 0
    text = page.read_text()
    assert text.startswith("a\n<!-- promises -->\n| scores") and text.endswith("<!-- /drift -->\nc\n")
    assert "stale" not in text and "numpy" in text and "--repetitions 300" in text
    assert "| normal | 5% | 50 |" in capsys.readouterr().out


def test_wrong_pages_and_settings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        simulate.write_between(tmp_path / "no.md", "promises", "")
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(SettingsError, match="<!-- promises -->"):
        simulate.write_between(tmp_path / "bare.md", "promises", "")
    assert simulate.main(["--repetitions", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: repetitions")
