"""The self-check passes where the scores are the maker's, and fails where they are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.errors import BundleError
from ahl_runtime.score.selfcheck import Check, Report, check


def ran(report: Report) -> list[Check]:
    """Those of the engines that this machine has."""
    return [c for c in report.checks if c.passed is not None]


def test_it_passes_here(bundle_path: Path) -> None:
    (result,) = ran(check(open_bundle(bundle_path), threads=1))
    assert result.passed and result.engine == "onnxruntime" and result.frames == 2
    assert result.largest is not None and result.largest < 1e-6


@pytest.mark.parametrize(("off", "passed"), [(5e-5, True), (2e-4, False)])
def test_it_fails_past_the_tolerance(make_bundle: Callable[..., Path], parts: Any, off: float, passed: bool) -> None:
    first, second = parts[0]["artefacts"][0]["reference"]
    moved = [first, {**second, "score": second["score"] + off}]
    (result,) = ran(check(open_bundle(make_bundle(first={"reference": moved}))))
    assert result.passed == passed and result.largest == pytest.approx(off, abs=1e-6)


def test_an_engine_that_raises_fails_with_its_reason(make_bundle: Callable[..., Path]) -> None:
    (result,) = ran(check(open_bundle(make_bundle(members={"model.onnx": b"junk"}))))
    assert not result.passed and "model cannot be loaded" in (result.error or "")


def test_a_damaged_reference_frame_fails(make_bundle: Callable[..., Path]) -> None:
    (result,) = ran(check(open_bundle(make_bundle(members={"reference/1.png": b"junk"}))))
    assert not result.passed and "not an image" in (result.error or "")


def test_it_says_what_it_would_choose_and_why(bundle_path: Path) -> None:
    report = check(open_bundle(bundle_path), threads=1)
    assert report.passed and report.chosen == "onnxruntime"
    assert report.why.startswith("onnxruntime: the first that can run here")


def test_an_engine_that_cannot_run_here_is_no_failure_but_says_why(
    make_bundle: Callable[..., Path], parts: Any
) -> None:
    newer = {**parts[0]["artefacts"][0], "engine": "abacus"}
    report = check(open_bundle(make_bundle(fields={"artefacts": [*parts[0]["artefacts"], newer]})))
    (unknown,) = (c for c in report.checks if c.engine == "abacus")
    assert report.passed and unknown.passed is None and "does not know this engine" in (unknown.error or "")


def test_nothing_to_check_with(make_bundle: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="no reference frames"):
        check(open_bundle(make_bundle(first={"reference": []})))
