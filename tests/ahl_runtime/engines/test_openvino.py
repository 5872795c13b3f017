"""OpenVINO runs a real IR from memory at any size and batch, in float32; what is wrong is said in one line."""

from pathlib import Path

import numpy as np
import pytest

from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import EngineError
from ahl_runtime.engines.openvino import OpenVinoEngine, read
from ahl_runtime.engines.ort import OrtEngine

openvino = pytest.importorskip("openvino", reason="the extra [openvino] is not installed")


def ir(model: bytes, folder: Path) -> tuple[bytes, bytes]:
    """xml and bin of an ONNX graph."""
    xml = folder / "model.xml"
    openvino.save_model(openvino.Core().read_model(model=model, weights=b""), xml, compress_to_fp16=False)
    return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()


@pytest.fixture(scope="module")
def parts(model: bytes, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    return ir(model, tmp_path_factory.mktemp("ir"))


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize(("height", "width"), [(300, 300), (448, 448), (768, 1024), (77, 130)])
def test_any_batch_and_size_scores_as_onnx_runtime(
    model: bytes, parts: tuple[bytes, bytes], n: int, height: int, width: int
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    got, wanted = OpenVinoEngine(read(*parts), threads=1).infer(images), OrtEngine(model).infer(images)
    for name in ("score", "anomaly_map", "head_scores"):
        assert getattr(got, name).dtype == np.float32
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), atol=1e-5)


def test_outputs_are_the_callers_own(parts: tuple[bytes, bytes], cells: list[Path]) -> None:
    engine = OpenVinoEngine(read(*parts), threads=1)
    first = engine.infer(decode(cells[0])[np.newaxis])
    before = first.score.copy(), first.anomaly_map.copy()
    engine.infer(255 - decode(cells[0])[np.newaxis])
    assert np.array_equal(first.score, before[0]) and np.array_equal(first.anomaly_map, before[1])


def test_it_computes_in_float32(parts: tuple[bytes, bytes]) -> None:
    compiled = OpenVinoEngine(read(*parts), threads=1)._compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


@pytest.mark.parametrize("images", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.float32)])
def test_other_pixels_are_refused(parts: tuple[bytes, bytes], images: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"openvino: expected uint8 \[N, H, W, 3\], got"):
        OpenVinoEngine(read(*parts)).infer(images)


@pytest.mark.parametrize("xml", [b"", b"junk", b"<net/>"])
def test_what_is_no_ir_is_refused(xml: bytes) -> None:
    with pytest.raises(EngineError, match="the IR cannot be loaded") as caught:
        read(xml, b"")
    assert "\n" not in str(caught.value)


def test_another_graph_is_refused(model: bytes, tmp_path: Path) -> None:
    import onnx

    graph = onnx.load_from_string(model)
    graph.graph.output.pop()
    with pytest.raises(EngineError, match="the IR lacks head_scores"):
        OpenVinoEngine(read(*ir(graph.SerializeToString(), tmp_path)))


def test_threads(parts: tuple[bytes, bytes]) -> None:
    with pytest.raises(EngineError, match="threads is 0"):
        OpenVinoEngine(read(*parts), threads=0)
