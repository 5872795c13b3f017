"""Thresholds, p-values and decisions: the rule, its edges, and its invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibration
from calibration import ScoresError, SettingsError

scores = st.lists(st.integers(-1000, 1000).map(float), min_size=2, max_size=200)


def normal(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_five_hundred_normals_promise_one_percent() -> None:
    s = normal(500)
    c = calibration.fit(s, 0.01, 0.95)
    assert c.promise.kind == "confident"
    assert (s > c.threshold).sum() == c.promise.exceedances == 1
    assert c.promise.rate_bound <= 0.01 and c.promise.attained_confidence >= 0.95
    assert c.promise.mean_rate == pytest.approx(2 / 501)
    low, high = c.promise.interval
    assert 0 < low < c.promise.mean_rate < high
    assert "at most 1%" in c.promise.sentence and "95%" in c.promise.sentence


def test_too_few_for_the_confidence_is_said() -> None:
    s = normal(120)
    c = calibration.fit(s, 0.01, 0.95)
    assert (c.promise.kind, c.threshold, c.promise.exceedances) == ("mean", s.max(), 0)
    assert c.promise.sentence.startswith("needs 299 normals for 1% at 95%; you have 120:")
    assert c.promise.attained_confidence == pytest.approx(1 - 0.99**120)
    assert c.promise.rate_bound > 0.01 >= c.promise.mean_rate


def test_far_too_few_rejects_nothing() -> None:
    s = normal(50)
    c = calibration.fit(s, 0.01)
    assert math.isinf(c.threshold) and c.promise.kind == "none"
    assert c.unsure_threshold == np.sort(s)[-2]  # (1 + 1) / 51 <= 0.05
    assert set(c.decide([1e9, s.min()])) == {"unsure", "pass"}
    assert (c.promise.needs_mean, c.promise.needs_confident) == (99, 299)
    assert c.promise.smallest_alpha == pytest.approx(1 / 51)
    assert "nothing is rejected" in c.promise.sentence


def test_the_three_outcomes_and_their_edges() -> None:
    c = calibration.fit(np.arange(1000.0), 0.05, 0.9)
    t, u = c.threshold, c.unsure_threshold
    above = [np.nextafter(t, np.inf), t, np.nextafter(u, np.inf), u]
    assert c.decide(above).tolist() == ["reject", "unsure", "unsure", "pass"]
    assert c.decide(above).shape == (4,)
    assert c.decide(2.0).shape == ()


def test_constant_scores_reject_only_what_is_above() -> None:
    c = calibration.fit(np.full(500, 0.25))
    assert c.threshold == c.unsure_threshold == 0.25
    assert c.promise.interval[0] == 0.0
    assert c.decide([0.25, 0.26]).tolist() == ["pass", "reject"]
    assert c.p_values([0.25, 0.26, 0.24]) == pytest.approx([1.0, 1 / 501, 1.0])
    assert "all calibration scores are equal" in c.promise.sentence


@settings(max_examples=100, deadline=None)
@given(s=scores, alpha=st.floats(0.001, 0.9), confidence=st.floats(0.5, 0.99))
def test_the_thresholds_are_ordered_and_conservative(s: list[float], alpha: float, confidence: float) -> None:
    c = calibration.fit(s, alpha, confidence)
    assert c.unsure_threshold <= c.threshold
    assert (np.array(s) > c.threshold).sum() <= c.promise.exceedances
    assert c.promise.mean_rate <= alpha
    assert math.isinf(c.threshold) == (c.promise.kind == "none") == (1 / (len(s) + 1) > alpha)


@settings(max_examples=100, deadline=None)
@given(s=scores, t=st.lists(st.integers(-1100, 1100).map(float), min_size=1, max_size=30))
def test_p_values_are_counts_and_fall_with_the_score(s: list[float], t: list[float]) -> None:
    p = calibration.fit(s).p_values(t)
    expected = [(1 + sum(a >= b for a in s)) / (len(s) + 1) for b in t]
    assert p.tolist() == expected
    order = np.argsort(t)
    assert (np.diff(p[order]) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(s=scores, t=st.lists(st.integers(-1100, 1100).map(float), min_size=1, max_size=30))
def test_increasing_transforms_change_nothing(s: list[float], t: list[float]) -> None:
    def cube(v: list[float]) -> np.ndarray:
        return np.array(v) ** 3 * 2 - 7

    a, b = calibration.fit(s, 0.1), calibration.fit(cube(s), 0.1)
    assert np.array_equal(a.p_values(t), b.p_values(cube(t)))
    assert np.array_equal(a.decide(t), b.decide(cube(t)))
    assert a.promise == b.promise


@settings(max_examples=25, deadline=None)
@given(s=st.lists(st.integers(0, 6).map(float), min_size=3, max_size=40))
def test_p_values_of_exchangeable_scores_are_super_uniform(s: list[float]) -> None:
    # Leave each score out in turn: exchangeability makes these n cases equally likely, so the share is exact.
    p = np.array([calibration.fit(s[:i] + s[i + 1 :]).p_values(s[i]) for i in range(len(s))])
    for level in np.arange(1, len(s) + 1) / len(s):
        assert (p <= level + 1e-12).mean() <= level + 1e-12


def test_the_same_scores_at_another_alpha() -> None:
    s = normal(600)
    a = calibration.fit(s, 0.01, 0.9, subject="b").at(0.05)
    b = calibration.fit(s, 0.05, 0.9, subject="b")
    assert (a.threshold, a.unsure_threshold, a.promise, a.subject) == (
        b.threshold,
        b.unsure_threshold,
        b.promise,
        "b",
    )


def test_the_input_is_neither_kept_nor_changed() -> None:
    s = normal(50)[::-1].copy()
    before = s.copy()
    c = calibration.fit(s)
    assert np.array_equal(s, before) and s.flags.writeable
    s[:] = 0
    assert c.scores.std() > 0
    with pytest.raises(ValueError):
        c.scores[0] = 1.0


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "at least 2"),
        ([1.0], "at least 2"),
        ([1.0, float("nan")], r"NaN.*\[1\]"),
        ([float("inf"), 1.0], r"infinite.*\[0\]"),
        ([[1.0, 2.0]], r"shape \[1, 2\]"),
        (3.0, r"shape \[\]"),
        (["a", "b"], "dtype"),
        ([[1.0], [2.0, 3.0]], "different lengths"),
        ([True, False], "dtype"),
        ([1 + 2j, 3.0], "dtype"),
    ],
)
def test_bad_scores_are_refused(bad: object, words: str) -> None:
    with pytest.raises(ScoresError, match=words):
        calibration.fit(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [1e-10, 1e-310])
def test_a_rate_that_no_line_could_show_is_refused(alpha: float) -> None:
    with pytest.raises(SettingsError, match="1e-09 or more"):
        calibration.fit(np.arange(100.0), alpha=alpha)
    assert calibration.fit(np.arange(100.0), alpha=1e-9).promise.kind == "none"


@pytest.mark.parametrize("bad", [0, 1, -0.1, 1.5, float("nan"), float("inf"), "x", None])
@pytest.mark.parametrize("name", ["alpha", "confidence"])
def test_bad_rates_are_refused(name: str, bad: object) -> None:
    with pytest.raises(SettingsError, match=name):
        calibration.fit([1.0, 2.0], **{name: bad})  # type: ignore[arg-type]


def test_unsure_below_alpha_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"unsure_alpha is 0\.01, below alpha 0\.05"):
        calibration.fit([1.0, 2.0], 0.05, unsure_alpha=0.01)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), [0.0, float("nan")]])
def test_nothing_is_decided_on_a_bad_score(bad: object) -> None:
    c = calibration.fit([1.0, 2.0])
    with pytest.raises(ScoresError):
        c.decide(bad)  # type: ignore[arg-type]
    with pytest.raises(ScoresError):
        c.p_values(bad)  # type: ignore[arg-type]
