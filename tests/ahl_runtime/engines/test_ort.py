"""ONNX Runtime runs a real graph at any size and batch; what is wrong is said in one line."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import EngineError
from ahl_runtime.engines.ort import CUDA, OrtEngine


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize(("height", "width"), [(300, 300), (448, 448), (77, 130), (1, 1)])
def test_any_batch_and_size(model: bytes, n: int, height: int, width: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    outputs = OrtEngine(model, threads=1).infer(images)
    assert outputs.score.shape == (n,) and outputs.score.dtype == np.float32
    assert outputs.anomaly_map.shape == (n, 16, 16) and outputs.head_scores.shape == (n, 2)
    assert np.allclose(outputs.head_scores[:, 0], outputs.score)


def test_scores_are_those_of_the_pixels(model: bytes) -> None:
    engine = OrtEngine(model)
    for grey in (0, 51, 255):
        score = engine.infer(np.full((1, 20, 30, 3), grey, np.uint8)).score[0]
        assert score == pytest.approx(1 - grey / 255, abs=1e-6)


def test_a_view_scores_as_its_copy(model: bytes, cells: list[Path]) -> None:
    engine = OrtEngine(model)
    view = decode(cells[0])[np.newaxis, ::2, ::-1]
    assert engine.infer(view).score[0] == engine.infer(view.copy()).score[0]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 1), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.float32),
    ],
)
def test_other_pixels_are_refused(model: bytes, images: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"onnxruntime: expected uint8 \[N, H, W, 3\], got"):
        OrtEngine(model).infer(images)


@pytest.mark.parametrize("data", [b"", b"junk", b"\x08\x09" * 40])
def test_what_is_no_model_is_refused(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match="model cannot be loaded") as caught:
        OrtEngine(data)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_another_graph_is_refused(model: bytes) -> None:
    graph = onnx.load_from_string(model)
    graph.graph.output.pop()
    with pytest.raises(EngineError, match="expected image and score, anomaly_map, head_scores"):
        OrtEngine(graph.SerializeToString())


def test_a_score_that_is_no_number_is_refused(model: bytes) -> None:
    graph = onnx.load_from_string(model)
    (one,) = (i for i in graph.graph.initializer if i.name == "one")
    one.CopyFrom(onnx.numpy_helper.from_array(np.array(np.nan, np.float32), "one"))
    with pytest.raises(EngineError, match="2 of 2 scores are NaN or infinite"):
        OrtEngine(graph.SerializeToString()).infer(np.zeros((2, 4, 4, 3), np.uint8))


def test_threads() -> None:
    with pytest.raises(EngineError, match="threads is 0"):
        OrtEngine(b"", threads=0)


def test_cuda_from_pips_packages_is_loaded_and_what_it_prints_stays_off_stdout(
    model: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's loader does not look into site-packages; on stdout may be JSON lines."""
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("no libcublas"))  # noqa: T201
    with suppress(EngineError):  # there may be no GPU
        OrtEngine(model, name=CUDA)
    assert capsys.readouterr() == ("", "no libcublas\n")
    OrtEngine(model)
    assert capsys.readouterr() == ("", "")
