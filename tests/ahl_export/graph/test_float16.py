"""The graph for TensorRT: the same function in float32; in float16 the backbone alone, within its bounds."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common.shape_inference import infer_shapes

from ahl_export.backends.trt_proof import bounds, prove, recipe
from ahl_export.errors import ExportError
from ahl_export.graph.float16 import for_tensorrt
from ahl_export.graph.onnx_graph import array_of, from_bytes, module_of, to_bytes
from ahl_export.verify.parity import Evidence
from ahl_runtime.engines.ort import OrtEngine
from ahl_train.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def halved(graph: bytes) -> bytes:
    return for_tensorrt(graph, "float16")


def test_pixels_are_cast_before_anything_else(graph: bytes) -> None:
    model = from_bytes(for_tensorrt(graph, "float32"))
    assert [n.op_type for n in model.graph.inputs[0].consumers()] == ["Cast"]


def test_float32_computes_the_same(graph: bytes, frames: np.ndarray) -> None:
    got, wanted = OrtEngine(for_tensorrt(graph, "float32")).infer(frames), OrtEngine(graph).infer(frames)
    np.testing.assert_allclose(got.score, wanted.score, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.anomaly_map, wanted.anomaly_map, rtol=1e-5, atol=1e-5)


def test_float16_is_the_backbones_alone(halved: bytes) -> None:
    graph = infer_shapes(from_bytes(halved), strict_mode=True).graph
    for node in graph:
        if node.op_type == "Conv":
            inside = module_of(node).startswith("extractor.backbone")
            assert (node.outputs[0].dtype == ir.DataType.FLOAT16) == inside, node.name
        elif node.op_type == "MatMul":
            assert node.outputs[0].dtype == ir.DataType.FLOAT, node.name
    assert sum(n.op_type == "Conv" for n in graph) > 50
    assert {o.dtype for o in graph.outputs} == {ir.DataType.FLOAT}


def test_float16_casts_no_tensor_back_and_forth_and_keeps_no_constant_twice(halved: bytes) -> None:
    graph = from_bytes(halved).graph
    casts = [n for n in graph if n.op_type == "Cast" and n.inputs[0].dtype == ir.DataType.FLOAT16]
    assert casts and not [c.name for c in casts if any(n.op_type == "Cast" for n in c.successors())]
    assert all(i.uses() for i in graph.initializers.values())


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
    model = from_bytes(graph)
    weight = next(n for n in model.graph if n.op_type == "Conv").inputs[1]
    weight.const_value = ir.Tensor(array_of(weight) * np.float32(1e7), name=weight.name)
    with pytest.raises(ExportError, match=r"beyond float16's range: export with --trt-precision float32"):
        for_tensorrt(to_bytes(model), "float16")


def test_what_is_no_graph_of_ours_is_refused(graph: bytes) -> None:
    image, score = (ir.val(name, ir.DataType.FLOAT, ["N"]) for name in ("image", "score"))
    relu = ir.node("Relu", [image], outputs=[score])
    model = ir.Model(ir.Graph([image], [score], nodes=[relu], opset_imports={"": 18}, name="g"), ir_version=10)
    with pytest.raises(ExportError, match="does not cast image"):
        for_tensorrt(to_bytes(model), "float32")
    with pytest.raises(ExportError, match="choose float16 or float32"):
        for_tensorrt(graph, "int8")


def test_the_gate_proves_it_and_refuses_another_models(run: Run, graph: bytes, halved: bytes) -> None:
    close = prove(halved, "float16", Evidence(run))
    assert close.frames == 10 and 0 < close.score_max < 0.1
    model = from_bytes(halved)
    bias = model.graph.initializers["extractor.preprocess.bias"]
    bias.const_value = ir.Tensor(array_of(bias) + np.float32(0.1), name=bias.name)
    with pytest.raises(ExportError, match="disagrees with the model in float16"):
        prove(to_bytes(model), "float16", Evidence(run))


def test_the_recipe_is_for_the_runs_frames(run: Run) -> None:
    made = recipe("float16", Evidence(run), compatible=True, hardware="ampere")
    assert made.usual == (1, 300, 300) and made.most == (8, 2048, 2048)
    assert made.version_compatible and made.hardware_compatible == "ampere"
