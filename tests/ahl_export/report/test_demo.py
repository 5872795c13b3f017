"""The demo on a small set: its figures are those of the bundle that stays beside the report."""

import json
from pathlib import Path

import pytest

from ahl_export.report.demo import demo
from ahl_runtime.bundle.bundle import open_bundle

pytestmark = pytest.mark.slow


def test_the_whole_road(small_set: Path, cache: Path, tmp_path: Path) -> None:
    page = demo(tmp_path / "demo", data=str(small_set), shots=3, alpha=0.1, cache=cache)
    assert page == tmp_path / "demo/report.html"
    figures = json.loads((tmp_path / "demo/report.json").read_text())
    assert figures["n_train_normal"] == 45
    assert figures["n_calibration"] == 45
    assert figures["n_test_normal"] == 10
    assert figures["n_test_anomaly"] == 5
    assert figures["auroc"] > 0.7
    assert figures["alpha"] == 0.1
    assert open_bundle(tmp_path / "demo/elpv.ahl").manifest.first.calibration.n == 45
    again = demo(tmp_path / "demo", data=str(small_set), shots=3, alpha=0.1, cache=cache)
    second = json.loads((again.parent / "report.json").read_text())
    assert second["auroc"] == figures["auroc"]
    assert second["detection_rate"] == figures["detection_rate"]
