"""The overlay leaves normal pixels alone, and tells the verdict in colour, shape and words."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import OutputError
from ahl_runtime.core.types import Decision, Verdict
from ahl_runtime.score.overlay import COLOURS, LUT, heat, overlay, picture, write_picture

SPOT = np.zeros((8, 8), np.float32)
SPOT[1, 6] = 3.0


def decision(verdict: Verdict, threshold: float = 1.0) -> Decision:
    return Decision(verdict, 1.25, 0.02, threshold, "", SPOT, SPOT[0], "", "", None, "")


def luminance(colours: np.ndarray) -> np.ndarray:
    return colours @ np.array([0.2126, 0.7152, 0.0722])


def test_the_colour_map_grows_lighter() -> None:
    assert LUT.shape == (256, 3) and LUT.dtype == np.uint8
    assert (np.diff(luminance(LUT)) > -0.5).all() and np.ptp(luminance(LUT)) > 200


def test_heat_grows_with_the_map() -> None:
    row = np.array([[-5.0, 1.0, 1.5, 3.0, 9.0, np.nan]], np.float32)
    assert heat(row, (1.0, 3.0), 1, 6)[0].tolist() == pytest.approx([0, 0, 0.25, 1, 1, 1])


def test_a_normal_map_leaves_the_frame_alone(cells: list[Path]) -> None:
    image = decode(cells[0])
    assert np.array_equal(overlay(image, np.full((8, 8), 0.39, np.float32), (0.0, 1.0)), image)


@pytest.mark.parametrize("size", [(300, 300), (90, 200), (5, 3), (1, 1)])
def test_only_the_spot_is_coloured(cells: list[Path], size: tuple[int, int]) -> None:
    image = np.ascontiguousarray(decode(cells[0])[: size[0], : size[1]])
    laid = overlay(image, SPOT, (0.0, 1.0))
    assert laid.shape == image.shape and laid.dtype == np.uint8
    if size == (300, 300):
        changed = np.argwhere((laid != image).any(axis=2))
        assert changed.min(axis=0)[1] > 180 and changed.max(axis=0)[0] < 110
        red, _, blue = laid[56, 243].astype(int)
        assert red > blue


def test_verdicts_differ_in_colour_and_in_shape(cells: list[Path]) -> None:
    image = decode(cells[0])
    pictures = {v: np.asarray(picture(image, decision(v), (0.0, 1.0))) for v in COLOURS}
    for verdict, drawn in pictures.items():
        assert tuple(drawn[-1, 0]) == COLOURS[verdict][0]
        assert np.array_equal(drawn[21:-4, 4:-4], overlay(image, SPOT, (0.0, 1.0)))
    marks = [luminance(p[:21, 4:25]) for p in pictures.values()]
    shapes = [np.abs(m - m[0, 0]) > 80 for m in marks]
    assert not any(np.array_equal(a, b) for i, a in enumerate(shapes) for b in shapes[:i])
    bands = sorted(float(luminance(np.array(c[0]))) for c in COLOURS.values())
    assert bands[2] - bands[0] > 100


def test_it_is_written_as_png_and_nothing_beside_it(tmp_path: Path, cells: list[Path]) -> None:
    path = tmp_path / "new" / "folder" / "a.png"
    write_picture(path, decode(cells[0]), decision("pass", float("inf")), (0.0, 1.0))
    assert Image.open(path).size == (308, 325)
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, cells: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.png: cannot be written"):
        write_picture(tmp_path / "file" / "a.png", decode(cells[0]), decision("pass"), (0.0, 1.0))
