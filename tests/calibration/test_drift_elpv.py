"""Drift on real frames: the ELPV normals, changed from frame 500 on. As a program, it writes the table into a page."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import calibration
from benchmarks import simulate
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


def load_normals() -> list[np.ndarray]:
    data = Path(elpv.__path__[0]) / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return [np.asarray(Image.open(data / name)) for name, probability, _ in rows if float(probability) == 0.0]


def alarms(
    change: Change, seeds: int, normals: list[np.ndarray], plain: list[FrameStatistics]
) -> list[tuple[int, tuple[str, ...]]]:
    """For each seed: the changed frames until the alarm (0 or less: a false one), and what it says has moved."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(plain))
        scores = rng.normal(size=len(plain))  # the score does not move: the frames alone must tell
        fitted = calibration.fit(scores[order[:300]]).with_frames([plain[i] for i in order[:300]])
        alarm = Drift(fitted, seed=seed)
        for t, i in enumerate(rng.choice(order[300:], size=800)):
            frame = plain[i] if t < 500 else measured(change(normals[i]))
            if alarm.observe(float(scores[i]), frame).alarm:
                break
        found.append((t - 499, alarm.report().moved if alarm.report().alarm else ()))
    return found


def unchanged_alarms(deals: int, frames: int, plain: list[FrameStatistics]) -> int:
    """How many deals of the normals (300 to calibrate) alarm on `frames` others, drawn with replacement."""
    rng = np.random.default_rng(0)
    edges, bags, pools = [], [], []
    for _ in range(deals):
        order = rng.permutation(len(plain))
        reference = frame_reference([plain[i] for i in order[:300]])
        edges += list(reference.values[:100].T)
        bags += list(reference.values[100:].T)
        pools += list(np.stack([reference.measure(plain[i]) for i in order[300:]]).T)
    m, pool = Martingales(edges, bags), np.stack(pools)
    rows, high = np.arange(len(pool)), np.zeros(len(pool))
    for _ in range(frames):
        pick = np.repeat(rng.integers(pool.shape[1], size=deals), 5)
        high = np.maximum(high, m.bet(m.rank(pool[rows, pick], rng.random(len(pool)))))
    return int((high.reshape(deals, 5).max(axis=1) >= np.log(6 / 0.01)).sum())


@pytest.fixture(scope="module")
def normals() -> list[np.ndarray]:
    return load_normals()


@pytest.fixture(scope="module")
def plain(normals: list[np.ndarray]) -> list[FrameStatistics]:
    return [measured(grey) for grey in normals]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_within_300_frames(
    change: str, normals: list[np.ndarray], plain: list[FrameStatistics]
) -> None:
    alter, expected = CHANGES[change]
    found = alarms(alter, 6, normals, plain)
    assert all(1 <= delay <= 300 and moved for delay, moved in found)
    assert sum(expected in moved for _, moved in found) >= 5


def test_unchanged_frames_hardly_ever_alarm(plain: list[FrameStatistics]) -> None:
    assert unchanged_alarms(30, 10_000, plain) <= 2


def table(seeds: int = 20, deals: int = 100) -> str:
    images = load_normals()
    plain = [measured(grey) for grey in images]
    lines = ["| change at frame 500 | alarm after (frames) | named rightly |", "|---|---|---|"]
    for name, (change, expected) in CHANGES.items():
        found = alarms(change, seeds, images, plain)
        delays = [delay for delay, _ in found]
        named = sum(expected in moved for _, moved in found)
        lines.append(f"| {name} | {min(delays)} to {max(delays)} | {named} of {seeds} |")
    false = unchanged_alarms(deals, 10_000, plain)
    lines.append(f"| none, 10,000 frames | {false} of {deals} streams alarmed | |")
    return "\n".join(lines)


if __name__ == "__main__":
    start = time.perf_counter()
    text = table()
    line = simulate.written_by(f"python {' '.join(sys.argv)}", time.perf_counter() - start)
    simulate.write_between(Path(sys.argv[1]), "elpv", f"{text}\n\n{line}")
