"""The graph: valid, free in batch and frame size, and the model's equal."""

import numpy as np
import onnx
import pytest
import torch

from ahl_export.onnx_graph import INPUT, OUTPUTS, to_onnx
from ahl_export.parity import compare
from ahl_runtime.engines.ort import OrtEngine
from ahl_runtime.types import Outputs
from ahl_train.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graph(run: Run) -> bytes:
    return to_onnx(run.model)


@pytest.fixture(scope="module")
def engine(graph: bytes) -> OrtEngine:
    return OrtEngine(graph)


def test_names_and_types_are_the_contract(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    (image,) = model.graph.input
    assert image.name == INPUT
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [o.name for o in model.graph.output] == list(OUTPUTS)
    dims = [d.dim_value if d.HasField("dim_value") else None for d in image.type.tensor_type.shape.dim]
    assert dims == [None, None, None, 3]


def test_every_operator_is_a_standard_one(graph: bytes) -> None:
    assert {i.domain for i in onnx.load_from_string(graph).opset_import} <= {"", "ai.onnx"}


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize(("height", "width"), [(300, 300), (448, 448), (768, 1024)])
def test_scores_as_the_model_at_any_size(run: Run, engine: OrtEngine, n: int, height: int, width: int) -> None:
    rng = np.random.default_rng(n)
    # Smooth frames, as cameras give them: noise says little about resizing.
    coarse = rng.integers(0, 256, (n, 12, 12, 3)).astype(np.uint8)
    frames = coarse.repeat(-(-height // 12), 1).repeat(-(-width // 12), 2)[:, :height, :width]
    for frame in frames[:2]:
        wanted = Outputs(*(t.numpy() for t in run.model.score(torch.from_numpy(frame.copy())[None])))
        close = compare(engine, [frame], [wanted])
        assert max(close.score_max, close.map_max) < 1e-4
    batch = engine.infer(np.ascontiguousarray(frames))
    single = np.array([engine.infer(f[None]).score[0] for f in frames])
    np.testing.assert_allclose(batch.score, single, rtol=1e-4, atol=1e-4)
    assert batch.head_scores.shape == (n, len(run.model.head_names))
    np.testing.assert_allclose(batch.head_scores.sum(1), batch.score, rtol=1e-4, atol=1e-4)
