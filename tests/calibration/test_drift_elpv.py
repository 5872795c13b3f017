"""Drift on real frames: the ELPV normals, changed from frame 500 on. Run with -s for the table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import calibration
from calibration import Drift, FrameStatistics, frame_statistics
from calibration.frames import frame_reference
from calibration.martingale import Martingales

elpv = pytest.importorskip("elpv_dataset", reason="needs elpv-dataset: pip install 'ahl[demo]'")
pytestmark = pytest.mark.slow

Change = Callable[[np.ndarray], np.ndarray]


def shift(rows: int, columns: int) -> Change:
    return lambda grey: ndimage.shift(grey, (rows, columns), order=0, mode="nearest")


CHANGES: dict[str, tuple[Change, str]] = {
    "gain x0.8": (lambda grey: (grey * 0.8).astype(np.uint8), "brightness fell"),
    "blur sigma 2": (lambda grey: ndimage.gaussian_filter(grey, 2.0), "sharpness fell"),
    "3 px right": (shift(0, 3), "horizontal position rose"),
    "3 px left": (shift(0, -3), "horizontal position fell"),
    "3 px down": (shift(3, 0), "vertical position rose"),
    "3 px up": (shift(-3, 0), "vertical position fell"),
}


def measured(grey: np.ndarray) -> FrameStatistics:
    return frame_statistics(np.repeat(grey[..., None], 3, axis=-1))


@pytest.fixture(scope="module")
def normals() -> list[np.ndarray]:
    data = Path(elpv.__path__[0]) / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return [np.asarray(Image.open(data / name)) for name, probability, _ in rows if float(probability) == 0.0]


@pytest.fixture(scope="module")
def plain(normals: list[np.ndarray]) -> list[FrameStatistics]:
    return [measured(grey) for grey in normals]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_within_300_frames(
    change: str, normals: list[np.ndarray], plain: list[FrameStatistics]
) -> None:
    alter, expected = CHANGES[change]
    delays, named = [], 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(plain))
        scores = rng.normal(size=len(plain))  # the score does not move: the frames alone must tell
        fitted = calibration.fit(scores[order[:300]]).with_frames([plain[i] for i in order[:300]])
        alarm = Drift(fitted, seed=seed)
        stream = rng.choice(order[300:], size=800)
        for t, i in enumerate(stream):
            f = plain[i] if t < 500 else measured(alter(normals[i]))
            if alarm.observe(float(scores[i]), f).alarm:
                break
        delays.append(t - 500)
        named += expected in alarm.report().moved
    sys.stdout.write(f"\n{change}: alarm after {min(delays) + 1} to {max(delays) + 1} frames, named {named} of 6\n")
    assert min(delays) >= 0 and max(delays) < 299
    assert named >= 5


def test_unchanged_frames_hardly_ever_alarm(plain: list[FrameStatistics]) -> None:
    # 30 deals of the normals; all six statistics (the score is noise) over 10,000 frames drawn with replacement.
    rng, deals, frames = np.random.default_rng(0), 30, 10_000
    edges, bags, pools = [], [], []
    for _ in range(deals):
        order = rng.permutation(len(plain))
        reference = frame_reference([plain[i] for i in order[:300]])
        rest = np.stack([reference.measure(plain[i]) for i in order[300:]]).T
        edges += list(reference.values[:100].T)
        bags += list(reference.values[100:].T)
        pools += list(rest)
    m, pool = Martingales(edges, bags), np.stack(pools)
    rows, high = np.arange(len(pool)), np.zeros(len(pool))
    for _ in range(frames):
        pick = np.repeat(rng.integers(pool.shape[1], size=deals), 5)
        high = np.maximum(high, m.bet(m.rank(pool[rows, pick], rng.random(len(pool)))))
    alarms = int((high.reshape(deals, 5).max(axis=1) >= np.log(6 / 0.01)).sum())
    sys.stdout.write(f"\nunchanged: {alarms} of {deals} streams of {frames} frames alarmed\n")
    assert alarms <= 2
