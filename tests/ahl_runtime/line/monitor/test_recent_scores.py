"""The newest scores: in order, at most so many, and their statistics as they were given."""

import numpy as np

import calibration
from ahl_runtime.line.monitor.recent_scores import RecentScores


def test_the_newest_last_and_no_more_than_fit() -> None:
    newest = RecentScores(3)
    assert newest.last(5) == []
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    given = [calibration.frame_statistics(image) if i != 3 else None for i, image in enumerate(images)]
    for i, found in enumerate(given):
        newest.add(str(i), i / 2, found)
    kept = newest.last(5)
    assert [(id, score) for id, score, _ in kept] == [("2", 1.0), ("3", 1.5), ("4", 2.0)]
    assert [id for id, _, _ in newest.last(2)] == ["3", "4"]
    assert kept[1][2] is None
    for (_, _, got), wanted in ((kept[0], given[2]), (kept[2], given[4])):
        assert got is not None and wanted is not None
        assert (got.brightness, got.contrast, got.sharpness) == (wanted.brightness, wanted.contrast, wanted.sharpness)
        np.testing.assert_allclose(got.profiles, wanted.profiles, rtol=1e-6, atol=1e-6)


def test_forgotten() -> None:
    newest = RecentScores(3)
    newest.add("a", 1.0, None)
    newest.clear()
    assert newest.last(3) == []
    newest.add("b", 2.0, None)
    assert newest.last(3) == [("b", 2.0, None)]
