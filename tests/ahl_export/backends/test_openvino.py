"""OpenVINO's IR: the graph's scores within the bounds of its float16 weights, at any batch and size."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper

from ahl_export.artefact import BuiltArtefact
from ahl_export.backends import openvino as openvino_ir
from ahl_export.errors import ExportError
from ahl_export.verify import parity
from ahl_export.verify.parity import Evidence
from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.engines.openvino import read
from ahl_runtime.engines.ort import OrtEngine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(graph: bytes) -> BuiltArtefact:
    return openvino_ir.build(graph)


def test_weights_are_stored_in_half_their_size(graph: bytes, built: BuiltArtefact) -> None:
    assert [name.rpartition(".")[2] for name in built.files] == ["xml", "bin"]
    assert sum(map(len, built.files.values())) < 0.75 * len(graph)
    assert b'element_type="f16"' in built.files["engines/openvino.xml"]


def test_scores_as_the_graph_at_any_size(graph: bytes, built: BuiltArtefact, frames: np.ndarray) -> None:
    assert built.run is not None
    got, wanted = built.run.infer(frames), OrtEngine(graph).infer(frames)
    scale = np.maximum(1, np.abs(wanted.score))
    assert (np.abs(got.score - wanted.score) / scale).max() < built.bounds.score
    np.testing.assert_allclose(got.anomaly_map, wanted.anomaly_map, atol=built.bounds.map)
    assert got.head_scores.shape == wanted.head_scores.shape


def test_small_convolutions_keep_their_weights(built: BuiltArtefact) -> None:
    import openvino

    xml, weights = built.files.values()
    model = openvino.Core().read_model(model=xml, weights=weights)
    convolutions = [o for o in model.get_ordered_ops() if o.get_type_name() in ("Convolution", "GroupConvolution")]
    halved = {o.input_value(1).get_node().get_type_name() == "Convert" for o in convolutions}
    assert halved == {True, False}
    for layer in convolutions:
        large = layer.input_value(1).get_partial_shape().to_shape()
        kind = layer.input_value(1).get_node().get_type_name()
        assert kind == ("Convert" if np.prod(large) >= openvino_ir._FEW else "Constant")


def test_what_is_no_graph_is_refused() -> None:
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([helper.make_node("Abacus", ["image"], ["score"])], "g", [image], [score])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(ExportError, match=r"OpenVINO cannot read the graph: .*Abacus") as caught:
        openvino_ir.build(model.SerializeToString())
    assert "\n" not in str(caught.value)


def test_frames_side_by_side_score_as_one_after_the_other(
    graph: bytes, built: BuiltArtefact, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "_TIMED", 2)
    for engine in (built.run, OrtEngine(graph)):
        assert engine is not None
        alone = [float(engine.infer(pixels[None]).score[0]) for pixels in evidence.normals()]
        found = parity.survey(engine, evidence)
        np.testing.assert_allclose(found.normal, alone, rtol=1e-6)
        assert len(found.milliseconds) == 2 and len(found.pseudo) == 20


def test_frames_are_scored_in_parallel_only_on_request(full_bundle: Bundle, frames: np.ndarray) -> None:
    only, same, one = engines.single_and_parallel(full_bundle, "openvino", 2)
    assert only is same and one == 1  # it needs more memory
    single, parallel, many = engines.single_and_parallel(full_bundle, "openvino", 2, side_by_side=True)
    streams = [e._compiled.get_property("NUM_STREAMS") for e in (single, parallel)]
    assert many == 2 and streams == [1, 2]
    expected = np.concatenate([single.infer(frame[None]).score for frame in frames])
    with ThreadPoolExecutor(many) as pool:
        found = list(pool.map(lambda frame: float(parallel.infer(frame[None]).score[0]), frames))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights_are_widened_once_for_all_that_is_compiled(built: BuiltArtefact) -> None:
    import openvino

    def stored(model: openvino.Model) -> set[openvino.Type]:
        return {o.get_element_type() for o in model.get_ops() if o.get_type_name() == "Constant"}

    xml, weights = built.files.values()
    assert openvino.Type.f16 in stored(openvino.Core().read_model(model=xml, weights=weights))
    assert openvino.Type.f16 not in stored(read(xml, weights))
