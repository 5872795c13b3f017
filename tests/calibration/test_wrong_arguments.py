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


@pytest.mark.parametrize("target", [None, 3, "a\0b"])
def test_a_calibration_is_saved_to_a_path_or_a_file(
    target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CalibrationError, match=r"expected a path or a binary file|zero byte"):
        FITTED.save(target)
    assert list(tmp_path.iterdir()) == []
