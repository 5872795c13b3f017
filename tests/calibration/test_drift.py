"""The drift alarm: what it watches, what it says, and that it survives a power cut."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

import calibration
from calibration import (
    Calibration,
    CalibrationFileError,
    Drift,
    FrameStatistics,
    ScoresError,
    SettingsError,
    StateError,
    frame_statistics,
)


def frame(rng: np.random.Generator, brightness: float = 120.0) -> FrameStatistics:
    x = np.linspace(0, 6 * np.pi, 256)
    profiles = np.stack([np.sin(x), np.cos(x)]) + rng.normal(0, 0.1, size=(2, 256))
    return FrameStatistics(rng.normal(brightness, 5), rng.normal(0.2, 0.01), rng.normal(0.05, 0.005), profiles)


@pytest.fixture
def fitted() -> Calibration:
    rng = np.random.default_rng(0)
    return calibration.fit(rng.normal(size=300)).with_frames([frame(rng) for _ in range(150)])


def test_it_names_what_moved_and_stays_on_until_reset(fitted: Calibration) -> None:
    rng, d = np.random.default_rng(1), Drift(fitted)
    for _ in range(300):
        assert not d.observe(rng.normal(), frame(rng)).alarm
    assert d.report().sentence.startswith("no change seen in 300 frames")
    for _ in range(100):
        before, report = d.report(), d.observe(rng.normal(), frame(rng, brightness=105))
        if report.alarm and not before.alarm:
            assert before.evidence["brightness"] < report.limit <= report.evidence["brightness"]
    assert report.alarm and report.moved == ("brightness fell",)
    assert report.evidence["brightness"] >= report.limit == pytest.approx(np.log10(600))
    assert "the line has changed: brightness fell" in report.sentence
    for _ in range(5):
        report = d.observe(rng.normal(), frame(rng))
    assert report.moved == ("brightness fell",)
    d.reset()
    assert (d.report().alarm, d.report().frames, set(d.report().evidence.values())) == (False, 0, {0.0})
    assert d.to_dict()["counts"] == Drift(fitted).to_dict()["counts"]


def test_scores_alone_are_enough(fitted: Calibration) -> None:
    rng = np.random.default_rng(2)
    d = Drift(calibration.fit(rng.normal(size=100)))
    assert d.names == ("score",)
    reports = [d.observe(rng.normal(2, 1)) for _ in range(150)]
    assert reports[-1].moved == ("score rose",)
    assert d.limit == pytest.approx(2.0)


def test_a_power_cut_changes_nothing(fitted: Calibration) -> None:
    rng, d = np.random.default_rng(3), Drift(fitted, bound=0.02, seed=5)
    stream = [(rng.normal(), frame(rng)) for _ in range(60)]
    stream += [(rng.normal(2, 1), frame(rng)) for _ in range(80)]
    for score, f in stream[:100]:
        d.observe(score, f)
    again = Drift.from_dict(fitted, json.loads(json.dumps(d.to_dict())))
    assert again.report() == d.report()
    for score, f in stream[100:]:
        assert again.observe(score, f) == d.observe(score, f)
    assert d.report().moved == ("score rose",)
    assert len(json.dumps(d.to_dict(), allow_nan=False)) < 20_000
    fresh = Drift.from_dict(fitted, json.loads(json.dumps(Drift(fitted).to_dict(), allow_nan=False)))
    assert fresh.report() == Drift(fitted).report()


def test_states_that_do_not_fit_are_refused(fitted: Calibration) -> None:
    rng, d = np.random.default_rng(4), Drift(fitted)
    d.observe(0.0, frame(rng))
    state = d.to_dict()
    with pytest.raises(StateError, match="another calibration"):
        Drift.from_dict(calibration.fit(rng.normal(size=300)), state)
    with pytest.raises(StateError, match="format 2, this program reads 1"):
        Drift.from_dict(fitted, {**state, "format": 2})
    for name, bad in [
        ("counts", [[1.0]]),
        ("counts", None),
        ("stakes", [[float("nan")] * 8] * 6),
        ("log_capital", [0.0]),
        ("moved", {"score": "exploded"}),
        ("moved", None),
        ("frames", -1),
        ("random", {}),
        ("bound", 2.0),
    ]:
        with pytest.raises(calibration.CalibrationError):
            Drift.from_dict(fitted, {**state, name: bad})
    for name in state:
        with pytest.raises(StateError, match="damaged"):
            Drift.from_dict(fitted, {k: v for k, v in state.items() if k != name})


def test_bad_frames_leave_the_state_alone(fitted: Calibration) -> None:
    rng, d = np.random.default_rng(5), Drift(fitted)
    before = d.to_dict()
    with pytest.raises(ScoresError, match="NaN"):
        d.observe(float("nan"), frame(rng))
    with pytest.raises(ScoresError, match="holds frame statistics"):
        d.observe(0.0)
    with pytest.raises(ScoresError, match="one frame"):
        d.observe([0.0, 1.0], frame(rng))  # type: ignore[arg-type]
    with pytest.raises(ScoresError, match="holds no frame statistics"):
        Drift(calibration.fit(rng.normal(size=100))).observe(0.0, frame(rng))
    assert d.to_dict() == before


def test_a_frame_is_watched_in_under_a_millisecond(fitted: Calibration) -> None:
    d, image, laps = Drift(fitted), np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8), []
    for _ in range(60):
        start = time.perf_counter()
        d.observe(0.0, frame_statistics(image))
        laps.append(time.perf_counter() - start)
    assert min(laps) < 0.001


def test_bad_settings_are_refused(fitted: Calibration) -> None:
    with pytest.raises(SettingsError, match="bound is 0"):
        Drift(fitted, bound=0)
    with pytest.raises(ScoresError, match="29 calibration normals: the drift alarm needs at least 30"):
        Drift(calibration.fit(np.arange(29.0)))


def test_the_reference_is_kept_in_the_file_and_across_alphas(fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path / "c.npz")
    loaded = Calibration.load(tmp_path / "c.npz")
    assert Drift(loaded).to_dict() == Drift(fitted).to_dict() == Drift(fitted.at(0.05)).to_dict()
    with np.load(tmp_path / "c.npz") as z:
        members = {name: z[name] for name in z.files}
    for name, bad in [("frame_template", np.zeros((2, 9))), ("frame_values", np.full((40, 5), np.nan))]:
        np.savez(tmp_path / "bad.npz", **{**members, name: bad})
        with pytest.raises(CalibrationFileError, match="frame statistics"):
            Calibration.load(tmp_path / "bad.npz")
    del members["frame_template"]
    np.savez(tmp_path / "bad.npz", **members)
    with pytest.raises(CalibrationFileError, match="members"):
        Calibration.load(tmp_path / "bad.npz")
