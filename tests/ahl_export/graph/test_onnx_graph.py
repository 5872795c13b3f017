"""The graph: valid, free in batch and frame size, the model's equal, and of no machine."""

import numpy as np
import onnx
import pytest
import torch

from ahl_export.errors import ExportError
from ahl_export.graph.onnx_graph import INPUT, OUTPUTS, array_of, from_bytes, module_of, own_constants
from ahl_export.verify.parity import compare
from ahl_runtime.core.types import Outputs
from ahl_runtime.engines.ort import OrtEngine
from ahl_train.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(graph: bytes) -> OrtEngine:
    return OrtEngine(graph)


def test_names_and_types_are_the_contract(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    (image,) = model.graph.input
    assert image.name == INPUT
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [o.name for o in model.graph.output] == list(OUTPUTS)
    dims = [d.dim_value if d.HasField("dim_value") else None for d in image.type.tensor_type.shape.dim]
    assert dims == [None, None, None, 3]


def test_every_operator_is_a_standard_one(graph: bytes) -> None:
    assert {i.domain for i in onnx.load_from_string(graph).opset_import} <= {"", "ai.onnx"}


def test_nodes_are_named_after_modules_and_nothing_of_the_machine_is_left(run: Run, graph: bytes) -> None:
    model = from_bytes(graph)
    modules = {name for name, _ in run.model.named_modules()}
    convolutions = [module_of(n) for n in model.graph if n.op_type == "Conv"]
    assert set(convolutions) <= modules and "extractor.backbone.net.conv_stem" in convolutions
    assert len({n.name for n in model.graph}) == len(model.graph)
    assert not [said for said in (b".py", b"site-packages", b"pkg.torch") if said in graph]


def test_scores_as_the_model_at_any_size(run: Run, engine: OrtEngine, frames: np.ndarray) -> None:
    for frame in frames[:2]:
        wanted = Outputs(*(t.numpy() for t in run.model.score(torch.from_numpy(frame.copy())[None])))
        close = compare(engine, [frame], [wanted])
        assert max(close.score_max, close.map_max) < 1e-4
    batch = engine.infer(frames)
    single = np.array([engine.infer(f[None]).score[0] for f in frames])
    np.testing.assert_allclose(batch.score, single, rtol=1e-4, atol=1e-4)
    assert batch.head_scores.shape == (len(frames), len(run.model.head_names))
    np.testing.assert_allclose(batch.head_scores.sum(1), batch.score, rtol=1e-4, atol=1e-4)


def test_convolutions_that_share_constants_get_their_own(graph: bytes) -> None:
    model = from_bytes(graph)
    convolutions = [n for n in model.graph if n.op_type == "Conv"]
    before = [array_of(n.inputs[1]) for n in convolutions]
    assert len({n.inputs[1] for n in convolutions}) < len(convolutions)
    own_constants(model, (1,))
    assert len({n.inputs[1].name for n in convolutions}) == len(convolutions)
    assert len({n.inputs[2].name for n in convolutions}) < len(convolutions)
    for node, wanted in zip(convolutions, before, strict=True):
        np.testing.assert_array_equal(array_of(node.inputs[1]), wanted)


def test_what_is_no_constant_has_no_values(graph: bytes) -> None:
    with pytest.raises(ExportError, match="image is not a constant"):
        array_of(from_bytes(graph).graph.inputs[0])
