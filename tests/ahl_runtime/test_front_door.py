"""`ahl_runtime.load(...).score(...)`: images of every kind, a batch, a map; whatever is wrong is a RuntimeFault."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ahl_runtime
from ahl_runtime.core.decode import decode


@pytest.fixture(scope="module")
def detector(bundle_path: Path) -> ahl_runtime.Scorer:
    return ahl_runtime.load(str(bundle_path), threads=1)


def test_a_path_bytes_and_pixels_are_the_same_image(detector: ahl_runtime.Scorer, cells: list[Path]) -> None:
    given = [str(cells[0]), cells[0], cells[0].read_bytes(), decode(cells[0]), ahl_runtime.Frame(decode(cells[0]))]
    scored = [detector.score(image) for image in given]
    assert len({(s.score, s.p_value, s.verdict, s.threshold) for s in scored}) == 1
    assert [s.frame for s in scored] == ["cell0001.png", "cell0001.png", "", "", ""]
    assert scored[0].anomaly_map.shape == (16, 16) and scored[0].anomaly_map.dtype == np.float32


def test_a_batch_is_its_images_one_by_one(detector: ahl_runtime.Scorer, cells: list[Path]) -> None:
    small = decode(cells[3])[:50, :70]
    given = [*cells[:10], small, small, cells[0]]
    found = detector.score_batch(given, at_once=4)
    assert [f.score for f in found] == pytest.approx([detector.score(g).score for g in given], abs=1e-6)
    assert found[10].image.shape == (50, 70, 3) and detector.score_batch([]) == []


def test_the_overlay_is_the_image_with_its_map(detector: ahl_runtime.Scorer, cells: list[Path], tmp_path: Path) -> None:
    scored = detector.score(cells[0])
    assert scored.overlay().shape == scored.image.shape and not np.array_equal(scored.overlay(), scored.image)
    scored.save(str(tmp_path / "maps" / "cell.png"))
    with Image.open(tmp_path / "maps" / "cell.png") as picture:
        assert picture.width > scored.image.shape[1]


@pytest.mark.parametrize(
    "image",
    [None, 3, [[1]], "nowhere.png", b"", b"\x89PNG", np.zeros((4, 4)), np.zeros((0, 4, 3), np.uint8)],
    ids=repr,
)
def test_what_is_no_image_is_an_image_error(detector: ahl_runtime.Scorer, image: Any) -> None:
    with pytest.raises(ahl_runtime.ImageError, match=r"expected|check the path"):
        detector.score(image)


def test_nothing_is_scored_of_a_batch_with_a_bad_image(detector: ahl_runtime.Scorer, cells: list[Path]) -> None:
    with pytest.raises(ahl_runtime.ImageError, match=r"nowhere\.png: no such file: check the path"):
        detector.score_batch([cells[0], "nowhere.png"])
    with pytest.raises(ahl_runtime.EngineError, match="at_once is 0: expected 1 or more"):
        detector.score_batch([cells[0]], at_once=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "abacus"},
        {"threads": 0},
        {"threads": 10**9},
        {"threads": "two"},
        {"source": "a b"},
        {"source": 7},
        {"engine": ["onnxruntime"]},
        {"trust": "nowhere.pub"},
        {"trust": 7},
    ],
    ids=str,
)
def test_what_cannot_be_loaded_so_is_said(bundle_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ahl_runtime.RuntimeFault, match=r"expected|choose among|check the path"):
        ahl_runtime.load(bundle_path, **wrong)


@pytest.mark.parametrize("path", ["nowhere.ahl", ".", 7, None])
def test_what_is_no_bundle_is_a_bundle_error(path: Any) -> None:
    with pytest.raises(ahl_runtime.BundleError):
        ahl_runtime.load(path)


@pytest.mark.parametrize("package", ["ahl_runtime", "ahl_train", "ahl_export", "calibration"])
def test_a_door_is_light_and_says_its_version_and_what_is_behind_it(package: str) -> None:
    code = (
        f"import sys, {package} as door; assert door.__version__; assert set(door.__all__) <= set(dir(door))\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules); assert not heavy, heavy\n"
        "door.nonsense"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith(f"AttributeError: module '{package}' has no attribute 'nonsense'")


def test_a_result_keeps_its_own_pixels(detector: ahl_runtime.Scorer, cells: list[Path]) -> None:
    """A camera fills its buffer with the next frame."""
    buffer = decode(cells[0]).copy()
    scored = detector.score(buffer)
    buffer[:] = 0
    assert np.array_equal(scored.image, decode(cells[0]))


@pytest.mark.parametrize("images", [None, 7, "frame.png", b"\x89PNG"], ids=repr)
def test_what_is_no_list_is_no_batch(detector: ahl_runtime.Scorer, images: Any) -> None:
    with pytest.raises(ahl_runtime.ImageError, match="expected a list of images"):
        detector.score_batch(images)


@pytest.mark.parametrize("name", ["", "a\0.png", "picture.jpg", None])
def test_a_picture_needs_a_name_of_a_png(detector: ahl_runtime.Scorer, cells: list[Path], name: Any) -> None:
    with pytest.raises(ahl_runtime.RuntimeFault, match=r"expected a path|ends in \.png"):
        detector.score(cells[0]).save(name)


def test_a_source_without_a_name_is_refused(bundle_path: Path) -> None:
    """The device's own calibration must not be left aside silently."""
    with pytest.raises(ahl_runtime.SideFileError, match="source name ''"):
        ahl_runtime.load(bundle_path, source="")
