"""Cross-conformal, per-source and false-discovery control, against their definitions and by simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import calibration
from calibration import ScoresError, SettingsError


def test_cross_thresholds_pool_the_folds_and_say_so() -> None:
    s = np.random.default_rng(0).normal(size=120)
    c = calibration.fit_cross(np.split(s, 5), 0.02)
    assert c.threshold == calibration.fit(s, 0.02).threshold
    assert c.promise.kind == "cross"
    assert c.promise.sentence == (
        "rejects 0.826% of normal frames on average, at most 2% with 91.1% confidence: an out-of-fold estimate, not a "
        "guarantee (120 normals in 5 folds, each scored by what was learned without it); "
        "a guarantee of 2% at 95% needs 149 normals held out"
    )
    sure = calibration.fit_cross(np.split(s, 5), 0.05).promise.sentence
    assert sure.startswith("rejects at most 5% of normal frames with 95% confidence, 1.65% expected: an out-of-fold")
    assert calibration.fit_cross(np.split(s, 5), 0.001).promise.kind == "none"
    assert calibration.fit_cross(np.split(s, 5), 0.001, tail=True).promise.kind == "tail"


def test_a_cross_calibration_never_becomes_a_guarantee(tmp_path: Path) -> None:
    folds = np.split(np.random.default_rng(0).normal(size=120), 5)
    c = calibration.fit_cross(folds, 0.001)
    c.save(tmp_path / "c.npz")
    again = calibration.Calibration.load(tmp_path / "c.npz").at(0.05)
    assert again.folds == (24,) * 5
    assert again.promise == calibration.fit_cross(folds, 0.05).promise
    assert again.promise.kind == "cross"


def test_cross_p_values_are_the_counts_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    folds = [rng.integers(0, 9, size=n).astype(float) for n in (7, 5, 8)]
    new = rng.integers(0, 9, size=(11, 3)).astype(float)
    p = calibration.cross_p_values(folds, new)
    for row, value in zip(new, p, strict=True):
        count = sum(int(a >= b) for fold, b in zip(folds, row, strict=True) for a in fold)
        assert value == (1 + count) / 21


def test_one_shared_model_gives_plain_conformal_p_values() -> None:
    s = np.random.default_rng(2).normal(size=60)
    new = np.random.default_rng(3).normal(size=20)
    cross = calibration.cross_p_values(np.split(s, 4), np.repeat(new[:, None], 4, axis=1))
    assert np.array_equal(cross, calibration.fit(s).p_values(new))


def test_the_cross_bound_is_the_stated_one() -> None:
    assert calibration.cross_bound(0.05, [1] * 40) == pytest.approx(0.10)
    assert calibration.cross_bound(0.05, [100] * 5) == pytest.approx(2 * (0.05 * 501 + 4) / 505)
    assert calibration.cross_bound(0.05, [10, 11]) == pytest.approx(2 * (0.05 * 22 + 1) / 23)
    assert calibration.cross_bound(0.9, [10, 10]) == 1.0


def test_the_cross_bound_holds_with_models_that_overfit() -> None:
    # The "model" is the mean of its training part in d dimensions; the score is the distance to it.
    rng = np.random.default_rng(4)
    n, K, d, alpha, hits, trials = 20, 4, 15, 0.1, 0, 2000
    for _ in range(trials):
        x = rng.standard_t(3, size=(n + 1, d))
        parts = np.split(np.arange(n), K)
        means = [np.delete(x[:n], part, axis=0).mean(axis=0) for part in parts]
        folds = [np.linalg.norm(x[part] - m, axis=1) for part, m in zip(parts, means, strict=True)]
        new = np.array([[np.linalg.norm(x[n] - m) for m in means]])
        hits += int(calibration.cross_p_values(folds, new)[0] <= alpha)
    assert hits / trials <= calibration.cross_bound(alpha, [n // K] * K)
    assert hits / trials == pytest.approx(alpha, abs=0.05)


def test_each_source_has_its_own_threshold() -> None:
    rng = np.random.default_rng(5)
    s = np.r_[rng.normal(0, 1, 300), rng.normal(50, 1, 400)]
    names = ["left"] * 300 + ["right"] * 400
    order = rng.permutation(700)
    m = calibration.fit_mondrian(s[order], [names[i] for i in order], 0.05)
    assert m.by_source["left"].threshold == calibration.fit(s[:300], 0.05).threshold
    assert m.by_source["right"].n == 400
    assert m.decide([25.0, 25.0], ["left", "right"]).tolist() == ["reject", "pass"]
    assert m.p_values([25.0, 25.0], ["right", "left"]).tolist() == [1.0, 1 / 301]
    assert m.p_values([], []).shape == (0,)


def test_sources_that_do_not_fit_are_refused() -> None:
    m = calibration.fit_mondrian([1.0, 2.0], ["a", "a"])
    with pytest.raises(ScoresError, match=r"no calibration for source 'b': known are \['a'\]"):
        m.decide([1.0], ["b"])
    with pytest.raises(ScoresError, match="one name per score"):
        m.decide([1.0, 2.0], ["a"])
    with pytest.raises(ScoresError, match="sources are 'ab': expected a list of names, one per score"):
        calibration.fit_mondrian([1.0, 2.0], "ab")
    with pytest.raises(ScoresError, match=r"source 'b': .*at least 2"):
        calibration.fit_mondrian([1.0, 2.0, 3.0], ["a", "a", "b"])
    with pytest.raises(ScoresError, match="at least 2"):
        calibration.fit_mondrian([], [])


@settings(max_examples=200, deadline=None)
@given(p=st.lists(st.integers(0, 40).map(lambda v: v / 40), max_size=30), q=st.floats(0.01, 0.99))
def test_benjamini_hochberg_agrees_with_scipy(p: list[float], q: float) -> None:
    adjusted = stats.false_discovery_control(p) if p else np.zeros(0)
    near = np.abs(adjusted - q) < 1e-9
    assert np.array_equal(calibration.benjamini_hochberg(p, q)[~near], (adjusted <= q)[~near])


def test_false_discoveries_stay_below_q() -> None:
    rng = np.random.default_rng(6)
    shares, found = [], []
    for _ in range(800):
        c = calibration.fit(rng.normal(size=200))
        batch = np.r_[rng.normal(size=80), rng.normal(4, 1, size=20)]
        hit = calibration.benjamini_hochberg(c.p_values(batch), 0.1)
        shares.append(hit[:80].sum() / max(1, hit.sum()))
        found.append(hit[80:].mean())
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) <= 0.1 * 0.8 + 3 * error
    assert np.mean(found) > 0.7


def test_bad_batches_and_folds_are_refused() -> None:
    for bad in ([0.5, 1.5], [-0.1], [[0.1]], [float("nan")]):
        with pytest.raises(ScoresError):
            calibration.benjamini_hochberg(bad)
    with pytest.raises(SettingsError, match=r"q \(the false discovery rate\) is 1"):
        calibration.benjamini_hochberg([0.5], 1)
    with pytest.raises(ScoresError, match="at least 2"):
        calibration.fit_cross([[1.0, 2.0]])
    with pytest.raises(ScoresError, match="fold 1's scores hold 0"):
        calibration.fit_cross([[1.0], []])
    with pytest.raises(ScoresError, match="one column per fold model"):
        calibration.cross_p_values([[1.0], [2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(ScoresError, match="fold sizes"):
        calibration.cross_bound(0.1, [3])
