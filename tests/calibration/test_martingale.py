"""Conformal martingales: uniform ranks, fair bets, the bound on false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from calibration.martingale import BETS, Martingales


def start(rng: np.random.Generator, rows: int, n: int = 90) -> Martingales:
    values = rng.lognormal(size=(rows, n))
    return Martingales(list(values[:, : n // 3]), list(values[:, n // 3 :]))


def test_ranks_are_the_counts_of_the_definition() -> None:
    m = Martingales([np.array([1.0, 2.0])], [np.array([0.5, 1.5, 1.6, 9.0])])
    assert m.counts.tolist() == [[1.0, 2.0, 1.0]]
    assert m.rank(np.array([1.2]), np.array([0.25])).tolist() == [(1 + 0.25 * 3) / 5]
    assert m.rank(np.array([2.5]), np.array([1.0])).tolist() == [2 / 6]
    assert m.counts.tolist() == [[1.0, 3.0, 2.0]]


def test_bags_of_different_sizes_stand_side_by_side() -> None:
    m = Martingales([np.array([1.0]), np.array([3.0, 1.0, 2.0])], [np.array([0.0, 5.0]), np.array([2.5])])
    assert m.counts.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]
    p = m.rank(np.array([5.0, 5.0]), np.array([0.5, 0.5]))
    assert p.tolist() == [0.5 * 2 / 3, 0.5 * 1 / 2]


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_of_exchangeable_values_are_uniform_and_independent(ties: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, size=(3000, 60)) * 1.0 if ties else rng.lognormal(size=(3000, 60))
    m = Martingales(list(values[:, :10]), list(values[:, 10:30]))
    p = np.stack([m.rank(values[:, t], rng.random(3000)) for t in range(30, 60)], axis=1)
    assert stats.kstest(p.ravel(), "uniform").pvalue > 0.001
    assert np.abs(np.corrcoef(p.T) - np.eye(30)).max() < 0.1
    assert p.mean(axis=1).std() == pytest.approx(np.sqrt(1 / 12 / 30), rel=0.1)


def test_every_bet_is_fair() -> None:
    # The capital after one bet, averaged over a fine grid of p, is what it was before.
    grid = (np.arange(20_000) + 0.5) / 20_000
    m = Martingales([np.zeros(1)] * grid.size, [np.zeros(1)] * grid.size)
    for _ in range(3):
        m.bet(np.full(grid.size, 0.03))
    before = np.exp(m.log_capital).sum(axis=(1, 2))[0]
    staked = np.exp(np.logaddexp(m.log_capital[0], -np.inf)).sum()
    assert before == pytest.approx(staked)
    savings = [1 / (1 + np.log1p(t / 300)) for t in (3, 4)]
    after = np.exp(m.bet(grid)).mean()
    assert after == pytest.approx(before + savings[0], rel=1e-6)


def test_capital_never_runs_dry_or_over() -> None:
    rng = np.random.default_rng(1)
    m = start(rng, 2)
    for _ in range(20_000):
        log_capital = m.bet(np.array([0.5, 1e-9]))
    assert np.isfinite(log_capital).all()
    assert log_capital[0] > np.log(0.1)
    assert log_capital[1] > 5000


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (lambda rng: rng.normal(1.5, 1), "rose"),
        (lambda rng: rng.normal(-1.5, 1), "fell"),
        (lambda rng: rng.normal(0, 4), "spread grew"),
        (lambda rng: rng.normal(0, 0.2), "spread shrank"),
    ],
)
def test_it_finds_and_names_a_change(draw: object, name: str) -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        m = Martingales([rng.normal(size=100)], [rng.normal(size=200)])
        for t in range(900):
            value = rng.normal() if t < 500 else draw(rng)  # type: ignore[operator]
            if m.bet(m.rank(np.array([value]), rng.random(1)))[0] > np.log(600):
                found.append((t >= 500, m.best_bet(0)))
                break
    assert len(found) == 20
    assert sum(late and bet == name for late, bet in found) >= 18
    assert name in BETS


def test_false_alarms_stay_below_the_bound() -> None:
    # 400 streams of 3,000 here; benchmarks.simulate runs 1,000 of 10,000.
    rng = np.random.default_rng(7)
    bound, streams = 0.05, 400
    m = start(rng, streams)
    highest = np.zeros(streams)
    for _ in range(3000):
        highest = np.maximum(highest, m.bet(m.rank(rng.lognormal(size=streams), rng.random(streams))))
    alarms = (highest >= np.log(1 / bound)).sum()
    assert alarms <= stats.binom.ppf(0.999, streams, bound)
    assert highest.max() > 1.0  # the streams do gamble: the test could fail
