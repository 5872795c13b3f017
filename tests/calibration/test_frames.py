"""Frame statistics: each one moves with its own cause, on any size, and cheaply."""

from __future__ import annotations

import time

import numpy as np
import pytest

from calibration import ScoresError, frame_statistics
from calibration.frames import NAMES, FrameReference, frame_reference, shapers


def scene(seed: int = 0, size: tuple[int, int] = (300, 300)) -> np.ndarray:
    """A grid of dark lines on noise, like a cell with its busbars: uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    image = rng.normal(150, 12, size=size)
    for at in (0.2, 0.5, 0.8):
        image[:, int(at * size[1]) : int(at * size[1]) + 6] -= 70
        image[int(at * size[0]) : int(at * size[0]) + 6] -= 50
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def reference() -> FrameReference:
    return frame_reference([frame_statistics(scene(i)) for i in range(60)])


def test_each_statistic_follows_its_cause() -> None:
    image, ref = scene(99), reference()
    plain = dict(zip(NAMES, ref.measure(frame_statistics(image)), strict=True))

    def of(changed: np.ndarray) -> dict[str, float]:
        return dict(zip(NAMES, ref.measure(frame_statistics(changed)), strict=True))

    assert plain["brightness"] == pytest.approx(image.mean(), rel=1e-4)
    assert plain["contrast"] == pytest.approx(image.std() / image.mean(), rel=0.02)
    dark = of((image * 0.8).astype(np.uint8))
    assert dark["brightness"] == pytest.approx(0.8 * plain["brightness"], rel=0.01)
    assert dark["contrast"] == pytest.approx(plain["contrast"], rel=0.02)
    soft = (image + np.roll(image.astype(int), 1, 0) + np.roll(image.astype(int), 1, 1)) // 3
    assert of(soft.astype(np.uint8))["sharpness"] < 0.6 * plain["sharpness"]
    right, down = of(np.roll(image, 2, axis=1)), of(np.roll(image, 2, axis=0))
    assert right["horizontal position"] - plain["horizontal position"] == pytest.approx(1.7, abs=0.8)
    assert down["vertical position"] - plain["vertical position"] == pytest.approx(1.7, abs=0.8)
    assert abs(right["vertical position"] - plain["vertical position"]) < 0.1
    assert right["brightness"] == pytest.approx(plain["brightness"])


@pytest.mark.parametrize("size", [(8, 8), (8, 4000), (31, 57), (300, 300), (321, 320), (2160, 3840)])
def test_any_size_and_flat_frames_give_finite_numbers(size: tuple[int, int]) -> None:
    for image in (scene(1, size), np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)):
        s = frame_statistics(image)
        assert np.isfinite([s.brightness, s.contrast, s.sharpness]).all()
        assert s.profiles.shape == (2, 256) and np.isfinite(s.profiles).all()
        assert s.brightness == pytest.approx(image.mean(), rel=0.1, abs=1e-6)


def test_extremes_do_not_overflow() -> None:
    board = np.indices((300, 300)).sum(axis=0) % 2 * 255
    s = frame_statistics(np.repeat(board.astype(np.uint8)[..., None], 3, axis=-1))
    assert s.sharpness == pytest.approx((4 * 255) ** 2 / 127.5**2, rel=1e-3)


def test_a_colour_that_fails_is_seen() -> None:
    image = scene(3)
    red = image.copy()
    red[..., 0] = 0
    assert frame_statistics(red).brightness < 0.7 * frame_statistics(image).brightness


def test_a_frame_costs_little() -> None:
    image = scene(1)
    laps = []
    for _ in range(30):
        start = time.perf_counter()
        frame_statistics(image)
        laps.append(time.perf_counter() - start)
    assert min(laps) < 0.001


@pytest.mark.parametrize(
    "bad",
    [np.zeros((300, 300), np.uint8), np.zeros((300, 300, 4), np.uint8), np.zeros((9, 9, 3)), np.zeros((7, 9, 3), "u1")],
)
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ScoresError, match="expected uint8"):
        frame_statistics(bad)


def test_the_reference_is_dealt_from_enough_frames() -> None:
    ref = reference()
    assert ref.values.shape == (60, 5) and ref.shapers == shapers(60) == 20
    assert np.abs(ref.values[:, 3:].mean()) < 0.5
    with pytest.raises(ScoresError, match="29 frames: the drift alarm needs at least 30"):
        frame_reference([frame_statistics(scene(i)) for i in range(29)])
