"""The Beta distribution against scipy, and the ranks against their definition."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calibration import rank
from calibration.beta import beta_cdf, beta_quantile

shape = st.integers(1, 5000)
unit = st.floats(1e-6, 1 - 1e-6)


@settings(max_examples=200, deadline=None)
@given(x=unit, a=shape, b=shape)
def test_cdf_agrees_with_scipy(x: float, a: int, b: int) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-8, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(q=unit, a=shape, b=shape)
def test_quantile_agrees_with_scipy(q: float, a: int, b: int) -> None:
    assert beta_quantile(q, a, b) == pytest.approx(stats.beta.ppf(q, a, b), rel=1e-6, abs=1e-12)


def test_cdf_is_accurate_for_a_million_normals() -> None:
    assert beta_cdf(0.01, 9_901, 990_100) == pytest.approx(stats.beta.cdf(0.01, 9_901, 990_100), rel=1e-6)


def test_the_ends_of_the_interval() -> None:
    assert (beta_cdf(0.0, 2, 3), beta_cdf(1.0, 2, 3)) == (0.0, 1.0)
    assert (beta_quantile(0.0, 2, 3), beta_quantile(1.0, 2, 3)) == (0.0, 1.0)


@settings(max_examples=100, deadline=None)
@given(n=st.integers(2, 1500), alpha=st.floats(0.001, 0.9), confidence=st.floats(0.5, 0.999))
def test_confident_rank_is_the_largest_that_holds(n: int, alpha: float, confidence: float) -> None:
    k = rank.confident_rank(n, alpha, confidence)
    sure = [stats.binom.sf(j, n, alpha) for j in (0 if k is None else k, n - 1 if k == n - 1 else (k or 0) + 1)]
    if k is None:
        assert sure[0] < confidence + 1e-9
    else:
        assert sure[0] >= confidence - 1e-9
        assert k == n - 1 or sure[1] < confidence + 1e-9


@pytest.mark.parametrize(("n", "alpha", "k"), [(99, 0.01, 0), (98, 0.01, None), (199, 0.01, 1), (99, 0.29, 28)])
def test_mean_rank_is_exact_at_the_edge(n: int, alpha: float, k: int | None) -> None:
    assert rank.mean_rank(n, alpha) == k


def test_how_many_normals_are_needed() -> None:
    assert [rank.needs_for_mean(a) for a in (0.01, 0.05, 0.001)] == [99, 19, 999]
    assert [rank.needs_for_confidence(a, 0.95) for a in (0.01, 0.05)] == [299, 59]
    assert rank.confident_rank(299, 0.01, 0.95) == 0
    assert rank.confident_rank(298, 0.01, 0.95) is None
    assert rank.smallest_confident_alpha(299, 0.95) < 0.01 < rank.smallest_confident_alpha(298, 0.95)
