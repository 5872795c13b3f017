"""The fitted tail: right on known laws, honest where it is not, and used only where nothing better exists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import calibration
from calibration import ScoresError


@pytest.mark.parametrize("xi", [-0.3, 0.0, 0.3])
def test_it_finds_the_parameters_of_its_own_law(xi: float) -> None:
    s = stats.genpareto(xi, scale=2.0).rvs(size=200_000, random_state=np.random.default_rng(3))
    f = calibration.fit_tail(s, 1e-4)
    assert f.xi == pytest.approx(xi, abs=0.1)
    assert f.threshold == pytest.approx(stats.genpareto(xi, scale=2.0).isf(1e-4), rel=0.15)
    assert f.fit_p > 0.01
    assert f.threshold_interval[0] < f.threshold < f.threshold_interval[1]


def test_survival_and_quantiles_agree_with_scipy() -> None:
    s = np.random.default_rng(0).lognormal(size=400)
    f = calibration.fit_tail(s, 0.001)
    m = f.exceedances.size
    law = stats.genpareto(f.xi, loc=f.u, scale=f.sigma)
    at = f.u + np.array([0.0, 0.5, 3.0])
    assert f.survival(at) == pytest.approx((m + 1) / 401 * law.sf(at))
    model, seen = f.quantiles()
    assert model == pytest.approx(law.ppf((np.arange(m) + 0.5) / m))
    assert seen.tolist() == (f.u + f.exceedances).tolist()
    assert (s > f.u).sum() == m
    assert f.threshold == pytest.approx(max(law.isf(0.001 * 401 / (m + 1)), s.max()))


@pytest.mark.parametrize("law", [stats.expon, stats.norm, stats.lognorm(1.0), stats.t(4)])
def test_its_claims_hold_about_as_often_as_stated(law: stats.rv_continuous) -> None:
    rng = np.random.default_rng(5)
    promises, rates = [], []
    for _ in range(120):
        c = calibration.fit(law.rvs(size=73, random_state=rng), 0.01, tail=True)
        promises.append(c.promise)
        rates.append(law.sf(c.threshold))
    inside = np.mean([p.interval[0] <= r <= p.interval[1] for p, r in zip(promises, rates, strict=True)])
    assert inside >= 0.85
    assert 0.005 < np.mean(rates) < 0.02
    assert np.mean([p.mean_rate for p in promises]) == pytest.approx(np.mean(rates), rel=0.4)


def test_a_wrong_law_is_noticed_and_a_right_one_is_not() -> None:
    rng = np.random.default_rng(2)
    right = [calibration.fit_tail(rng.exponential(size=300), seed=i).fit_p for i in range(60)]
    assert np.mean(np.array(right) < 0.1) < 0.25
    assert 0.3 < np.mean(right) < 0.7
    lump = np.concatenate([rng.normal(size=270), rng.normal(30, 0.1, size=30)])
    c = calibration.fit(lump, 0.001, tail=True)
    assert calibration.fit_tail(lump, 0.001).fit_p < 0.01
    assert "it fits badly" in c.promise.sentence


def test_it_is_used_only_where_conformal_cannot_promise() -> None:
    s = np.random.default_rng(1).normal(size=120)
    assert calibration.fit(s, 0.01, tail=True).promise == calibration.fit(s, 0.01).promise
    few = calibration.fit(s[:60], 0.01, tail=True)
    assert few.promise.kind == "tail" and math.isfinite(few.threshold)
    assert few.threshold >= s[:60].max() and few.unsure_threshold <= few.threshold
    assert few.promise.sentence.startswith("a model, not a guarantee")
    assert (few.promise.needs_mean, few.promise.needs_confident) == (99, 299)
    assert few.at(0.01, tail=True).threshold == few.threshold


def test_scores_move_and_scale_the_threshold_with_them() -> None:
    s = np.random.default_rng(1).lognormal(size=60)
    a, b = calibration.fit(s, 0.005, tail=True), calibration.fit(3 * s - 5, 0.005, tail=True)
    assert b.threshold == pytest.approx(3 * a.threshold - 5)
    assert b.promise.mean_rate == pytest.approx(a.promise.mean_rate, rel=1e-3)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (np.ones(60), "only 0 normal scores lie above 1"),
        (np.arange(19.0), "at least 20"),
        (np.r_[np.zeros(55), 1:6], "only 5 normal scores"),
    ],
)
def test_a_tail_that_is_not_there_is_refused(scores: np.ndarray, words: str) -> None:
    with pytest.raises(ScoresError, match=words):
        calibration.fit(scores, 0.01, tail=True)


def test_an_alpha_above_the_tail_is_refused() -> None:
    with pytest.raises(ScoresError, match=r"alpha 0\.5 is not in the tail"):
        calibration.fit_tail(np.arange(100.0), 0.5)
