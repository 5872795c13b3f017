"""Every argument of another type gives an error of the package, with what was expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import calibration
from calibration import Calibration, CalibrationError, Drift

NORMALS = np.random.default_rng(0).normal(size=500)
FITTED = calibration.fit(NORMALS, 0.01)


@pytest.mark.parametrize("value", [None, "a word", object()], ids=["None", "text", "object"])
@pytest.mark.parametrize(
    "call",
    [
        lambda value: calibration.fit(value),
        lambda value: calibration.fit(NORMALS, value),
        lambda value: calibration.fit(NORMALS, 0.1, value),
        lambda value: calibration.fit(NORMALS, 0.1, unsure_alpha=value or object()),
        lambda value: calibration.fit_tail(value, 0.1),
        lambda value: calibration.fit_cross(value),
        lambda value: calibration.fit_mondrian(value, ["left"]),
        lambda value: calibration.fit_mondrian(NORMALS, value),
        lambda value: calibration.cross_p_values(value, [[1.0, 2.0]]),
        lambda value: calibration.cross_p_values([NORMALS, NORMALS], value),
        lambda value: calibration.cross_bound(0.1, value),
        lambda value: calibration.cross_bound(0.1, [value, value]),
        lambda value: calibration.benjamini_hochberg(value),
        lambda value: calibration.benjamini_hochberg([0.1], value),
        lambda value: calibration.frame_statistics(value),
        lambda value: FITTED.with_frames(value),
        lambda value: FITTED.with_frames([value] * 30),
        lambda value: FITTED.p_values(value),
        lambda value: FITTED.decide(value),
        lambda value: Drift(value),
        lambda value: Drift(FITTED, bound=value),
        lambda value: Drift(FITTED).observe(value),
        lambda value: Drift.from_dict(FITTED, value),
        lambda value: Calibration.load(value),
    ],
)
def test_it_is_an_error_of_calibration(call: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(CalibrationError) as caught:
        call(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("subject", [None, 3, b"line", object(), "\udcff"], ids=ascii)
def test_a_subject_is_text(subject: Any) -> None:
    with pytest.raises(CalibrationError, match=r"subject is .*: expected text"):
        calibration.fit(NORMALS, 0.01, subject=subject)


@pytest.mark.parametrize("source", [None, 3, [], ("left",)], ids=ascii)
def test_a_source_is_named(source: Any) -> None:
    mondrian = calibration.fit_mondrian(NORMALS, ["left"] * len(NORMALS))
    for call in (mondrian.decide, mondrian.p_values):
        with pytest.raises(CalibrationError, match="expected its name"):
            call([1.0], [source])
    with pytest.raises(CalibrationError, match="expected its name"):
        calibration.fit_mondrian(NORMALS, [source] * len(NORMALS))


@pytest.mark.parametrize("frame", [5, "x", [1, 2]])
def test_statistics_of_a_frame_are_those_of_frame_statistics(frame: Any) -> None:
    with pytest.raises(CalibrationError, match="expected the result of frame_statistics"):
        Drift(FITTED).observe(0.3, frame)


@pytest.mark.parametrize("mode", ["rb", "w"])
def test_a_file_that_cannot_be_written_to(tmp_path: Path, mode: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (tmp_path / "file").open(mode) as file, pytest.raises(CalibrationError, match="open for writing"):
        FITTED.save(file)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [None, 3, "a\0b", "", "."])
def test_a_calibration_is_saved_to_a_path_or_a_file(
    target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CalibrationError, match=r"expected a path or a binary file|expected the path of a file"):
        FITTED.save(target)
    assert list(tmp_path.iterdir()) == []
