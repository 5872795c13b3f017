"""Plots of a calibration: the interval is the exact one, and what is drawn is what was computed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import calibration
from ahl_export.report.calibration_plots import level_interval, levels, martingale, reliability, replay

FITTED = calibration.fit(np.random.default_rng(0).normal(size=300), 0.05)


def test_the_interval_covers_the_level_that_keeps_alpha_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    true, hits = 1.6448536, 0  # the 95% quantile of the normal law
    for _ in range(400):
        low, high = level_interval(calibration.fit(rng.normal(size=300), 0.05), 0.05)
        hits += low < true <= high
    assert hits >= 0.95 * 400 - 3 * np.sqrt(400 * 0.95 * 0.05)


def test_the_interval_is_open_where_normals_are_too_few() -> None:
    few = calibration.fit(np.arange(50.0), 0.05)
    assert level_interval(few, 0.01)[1] == np.inf
    assert level_interval(few, 0.99)[0] == -np.inf


def test_reliability_shows_the_rates_of_the_test_normals() -> None:
    tested = np.random.default_rng(2).normal(size=200)
    axes = reliability(FITTED, tested).axes[0]
    line = next(x for x in axes.lines if "test normals" in str(x.get_label()))
    for alpha, rate in list(zip(*line.get_data(), strict=True))[::9]:
        threshold = FITTED.at(float(alpha) / 100).threshold
        assert rate == pytest.approx(max(100 * (tested > threshold).mean(), axes.get_ylim()[0]))


def test_too_few_normals_are_shaded_and_nothing_is_promised_there() -> None:
    few = calibration.fit(np.random.default_rng(3).normal(size=40), 0.05)
    axes = reliability(few).axes[0]
    expected = next(x for x in axes.lines if x.get_label() == "expected")
    assert np.min(expected.get_xdata()) >= 100 / 41
    assert "too few normals" in [t.get_text() for t in axes.get_legend().get_texts()]


def test_the_replayed_alarm_comes_after_the_change_and_says_so() -> None:
    stream = replay(FITTED)
    assert not stream.reports[stream.changed_at - 1].alarm
    assert stream.reports[-1].alarm
    axes = martingale(stream).axes[0]
    assert "frames later" in axes.get_title(loc="left")
    assert axes.lines[0].get_ydata()[10] == stream.reports[10].evidence["score"]


def test_an_alarm_before_the_change_is_called_false() -> None:
    stream = replay(FITTED)
    early = replace(stream, changed_at=len(stream.reports) - 1)
    assert "false alarm before it" in martingale(early).axes[0].get_title(loc="left")
    unchanged = replace(stream, reports=stream.reports[: stream.changed_at])
    assert "alarm" not in martingale(unchanged).axes[0].get_title(loc="left")


def test_levels_that_reject_nothing_and_equal_scores_are_drawn(tmp_path: Path) -> None:
    for fitted in (calibration.fit([1.0, 2.0, 3.0], 0.01), calibration.fit(np.ones(100), 0.05)):
        levels(fitted).savefig(tmp_path / "x.png")
        assert Image.open(tmp_path / "x.png").size > (100, 100)
