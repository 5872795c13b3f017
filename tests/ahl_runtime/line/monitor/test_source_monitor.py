"""What the log says of a source that fails."""

import logging
from pathlib import Path

import pytest

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.line.monitor.source_monitor import SourceMonitor
from ahl_runtime.score.decision import DecisionRule


def test_each_new_failure_is_logged_once(bundle_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = open_bundle(bundle_path)
    monitor = SourceMonitor("left", DecisionRule.of(bundle, bundle.manifest.first, None))
    for state, message in [
        ("live", "frame 1"),
        ("gone", "no cable"),
        ("gone", "no cable"),
        ("live", "frame 2"),
        ("gone", "no cable"),
        ("frozen", "the same frame"),
        ("ended", "2 frames"),
    ]:
        monitor.set_state(state, message)
    failures = [vars(record) for record in caplog.records if record.levelno == logging.WARNING]
    assert [(f["source"], f["error"]) for f in failures] == [
        ("left", "no cable"),
        ("left", "no cable"),
        ("left", "the same frame"),
    ]
