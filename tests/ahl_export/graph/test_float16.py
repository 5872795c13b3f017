"""The graph for TensorRT: the same function in float32; in float16 the backbone alone, within its bounds."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ahl_export.backends.trt_proof import bounds, prove, recipe
from ahl_export.errors import ExportError
from ahl_export.graph.float16 import for_tensorrt
from ahl_export.graph.onnx_graph import module_of
from ahl_export.verify.parity import Evidence
from ahl_runtime.engines.ort import OrtEngine
from ahl_train.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def halved(graph: bytes) -> bytes:
    return for_tensorrt(graph, "float16")


def test_pixels_are_cast_before_anything_else(graph: bytes) -> None:
    model = onnx.load_from_string(for_tensorrt(graph, "float32"))
    readers = [n for n in model.graph.node if "image" in n.input]
    assert [n.op_type for n in readers] == ["Cast"]


def test_float32_computes_the_same(graph: bytes, frames: np.ndarray) -> None:
    got, wanted = OrtEngine(for_tensorrt(graph, "float32")).infer(frames), OrtEngine(graph).infer(frames)
    np.testing.assert_allclose(got.score, wanted.score, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.anomaly_map, wanted.anomaly_map, rtol=1e-5, atol=1e-5)


def test_float16_is_the_backbones_alone(halved: bytes) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(halved), strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    for node in model.graph.node:
        if node.op_type == "Conv":
            inside = module_of(node).startswith("extractor.backbone")
            assert (types[node.output[0]] == TensorProto.FLOAT16) == inside, node.name
        elif node.op_type == "MatMul":
            assert types[node.output[0]] == TensorProto.FLOAT, node.name
    assert sum(n.op_type == "Conv" for n in model.graph.node) > 50
    assert {o.type.tensor_type.elem_type for o in model.graph.output} == {TensorProto.FLOAT}


def test_float16_is_smaller_and_rounds_within_its_bounds(graph: bytes, halved: bytes, frames: np.ndarray) -> None:
    assert len(halved) < 0.75 * len(graph)
    got, wanted = OrtEngine(halved).infer(frames), OrtEngine(graph).infer(frames)
    difference = (np.abs(got.score - wanted.score) / np.maximum(1, np.abs(wanted.score))).max()
    assert 1e-5 < difference < bounds("float16").score


@pytest.mark.parametrize("n", [3, 8])
def test_batches_score_as_single_frames(halved: bytes, n: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, 300, 200, 3), dtype=np.uint8)
    engine = OrtEngine(halved)
    alone = [engine.infer(image[None]).score[0] for image in images]
    np.testing.assert_allclose(engine.infer(images).score, alone, atol=1e-3, rtol=1e-3)


def test_weights_beyond_float16_are_refused(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    weight = next(i for i in model.graph.initializer if i.name == conv.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e7), weight.name))
    with pytest.raises(ExportError, match=r"beyond float16's range: export with --trt-precision float32"):
        for_tensorrt(model.SerializeToString(), "float16")


def test_what_is_no_graph_of_ours_is_refused(graph: bytes) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N"])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"])
    other = helper.make_graph([helper.make_node("Relu", ["image"], ["score"])], "g", [image], [score])
    model = helper.make_model(other, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(ExportError, match="does not cast image"):
        for_tensorrt(model.SerializeToString(), "float32")
    with pytest.raises(ExportError, match="choose float16 or float32"):
        for_tensorrt(graph, "int8")


def test_the_gate_proves_it_and_refuses_another_models(run: Run, graph: bytes, halved: bytes) -> None:
    close = prove(halved, "float16", Evidence(run))
    assert close.frames == 10 and 0 < close.score_max < 0.1
    model = onnx.load_from_string(halved)
    bias = next(i for i in model.graph.initializer if i.name.endswith("preprocess.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    with pytest.raises(ExportError, match="disagrees with the model in float16"):
        prove(model.SerializeToString(), "float16", Evidence(run))


def test_the_recipe_is_for_the_runs_frames(run: Run) -> None:
    made = recipe("float16", Evidence(run), compatible=True, hardware="ampere")
    assert made.usual == (1, 300, 300) and made.most == (8, 2048, 2048)
    assert made.version_compatible and made.hardware_compatible == "ampere"
