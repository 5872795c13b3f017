"""A frame becomes the decision that the manifest and the calibration say."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import ImageError
from ahl_runtime.core.types import Frame
from ahl_runtime.score.scoring import Scorer


def flat(score: float) -> np.ndarray:
    """Pixels that the graph gives about this score, to 1/255."""
    return np.full((8, 8, 3), round(255 * (1 - score)), np.uint8)


def test_a_decision_carries_what_it_was_made_from(bundle_path: Path, cells: list[Path]) -> None:
    bundle = open_bundle(bundle_path)
    captured = datetime(2024, 5, 1, 12, tzinfo=UTC)
    frame = Frame(decode(cells[0]), id="c1", source="camera 2", captured=captured)
    decision = Scorer(bundle, threads=1).score(frame)
    assert (decision.frame, decision.source, decision.captured) == ("c1", "camera 2", captured)
    assert decision.bundle == bundle.digest
    assert decision.promise == bundle.manifest.first.decision.promise
    assert decision.score == pytest.approx(1 - decode(cells[0]).mean() / 255, abs=0.02)
    assert decision.anomaly_map.shape == (16, 16) and decision.head_scores.shape == (2,)


def test_verdicts_follow_the_thresholds(make_bundle: Callable[..., Path], parts: Any) -> None:
    rule = {**parts[0]["artefacts"][0]["decision"], "threshold": 0.8, "unsure_threshold": 0.6}
    scorer = Scorer(open_bundle(make_bundle(first={"decision": rule})))
    verdicts = [scorer.score(flat(s)).verdict for s in (0.0, 0.5, 0.7, 0.9)]
    assert verdicts == ["pass", "pass", "unsure", "reject"]


def test_a_score_at_the_threshold_is_not_above_it(make_bundle: Callable[..., Path], parts: Any) -> None:
    at = Scorer(open_bundle(make_bundle())).score(flat(0.8)).score
    for threshold, unsure, verdict in ((at, at, "pass"), (at, 0.0, "unsure"), (math.nextafter(at, 0), 0.0, "reject")):
        rule = {**parts[0]["artefacts"][0]["decision"], "threshold": threshold, "unsure_threshold": unsure}
        assert Scorer(open_bundle(make_bundle(first={"decision": rule}))).score(flat(0.8)).verdict == verdict


def test_an_infinite_threshold_rejects_nothing(make_bundle: Callable[..., Path], parts: Any) -> None:
    rule = {**parts[0]["artefacts"][0]["decision"], "threshold": math.inf, "unsure_threshold": 0.5}
    scorer = Scorer(open_bundle(make_bundle(first={"decision": rule})))
    assert [scorer.score(flat(s)).verdict for s in (0.1, 1.0)] == ["pass", "unsure"]


def test_the_p_value_counts_the_normals(bundle_path: Path, cells: list[Path]) -> None:
    bundle = open_bundle(bundle_path)
    scorer = Scorer(bundle)
    for cell in (*cells[:3], None):
        decision = scorer.score(decode(cell) if cell else flat(1.0))
        at_least = int((bundle.calibration(bundle.manifest.first).scores >= decision.score).sum())
        assert decision.p_value == pytest.approx((1 + at_least) / 41)


def test_other_pixels_are_refused(bundle_path: Path) -> None:
    with pytest.raises(ImageError, match="expected uint8"):
        Scorer(open_bundle(bundle_path)).score(np.zeros((8, 8), np.uint8))
