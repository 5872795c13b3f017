"""`make soak`, for a few seconds: it accounts for every frame and writes its page."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_it_accounts_for_every_frame_and_writes_the_page(bundle_path: Path, tmp_path: Path) -> None:
    """Not whether the load was held: that is for a machine with nothing else to do."""
    page = tmp_path / "reliability.md"
    page.write_text((ROOT / "docs" / "results" / "reliability.md").read_text())
    command = [sys.executable, "-m", "benchmarks.soak", "--bundle", bundle_path, "--minutes", "0.1", "--page", page]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    assert "| Decisions lost, in the store, the file or at the subscriber | 0 |" in page.read_text()
    assert done.stdout.strip() in page.read_text()
