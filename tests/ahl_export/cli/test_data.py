"""`ahl data`: a published set compared with Table 1, and a set that is made."""

from pathlib import Path

import pytest

from tests.ahl_export.cli.support import ahl, refused

pytestmark = pytest.mark.slow


def test_data_check_and_synth(tmp_path: Path) -> None:
    done = ahl("data", "check", "elpv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1131" in done.stdout.replace(",", "")
    made = ahl("data", "synth", tmp_path / "s", "--normals", 8, "--anomalies", 5, "--size", 64)
    assert made.returncode == 0, made.stderr
    assert list((tmp_path / "s").rglob("*_mask.png"))
    assert "choose" in refused(ahl("data", "check", "nothing", tmp_path))
