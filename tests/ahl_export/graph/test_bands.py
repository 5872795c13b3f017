"""Chains cut into bands give the same numbers, and no wide tensor is left."""

from math import prod

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ahl_export.graph.bands import _BAND, banded

Kind = tuple[str, int, int, int, int]  # operator, kernel, stride, padding above, padding below
_LAYERS = st.tuples(
    st.sampled_from(["Conv", "Conv", "MaxPool", "Clip", "Relu"]),
    st.sampled_from([1, 2, 3, 5]),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(0, 2),
)


def chain(kinds: list[Kind], rows: int = 96, channels: int = 8) -> ModelProto:
    """From two channels to one, `channels` between; widths are padded as heights are."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = [
        helper.make_node("Relu", ["x"], ["0"], name="first/0"),
        helper.make_node("Abs", ["0"], ["1"]),
    ]
    constants = [numpy_helper.from_array(np.float32(v), name) for name, v in (("low", -0.5), ("high", 0.7))]

    def add(kind: Kind, into: int | None = None) -> None:
        operator, kernel, stride, above, below = kind
        source, name = nodes[-1].output[0], str(len(nodes) + 1)
        if operator in ("Clip", "Relu"):
            inputs = [source, "low", "high"] if operator == "Clip" else [source]
            nodes.append(helper.make_node(operator, inputs, [name], name=f"layer/{name}"))
            return
        above, below = min(above, kernel - 1), min(below, kernel - 1)
        how = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [above, above, below, below]}
        inputs = [source]
        if operator == "Conv":
            before = 2 if len(nodes) == 2 else channels
            weight = rng.standard_normal((into or channels, before, kernel, kernel)).astype(np.float32)
            constants.append(numpy_helper.from_array(weight / weight[0].size ** 0.5, f"{name}.weight"))
            inputs.append(f"{name}.weight")
        nodes.append(helper.make_node(operator, inputs, [name], name=f"layer/{name}", **how))

    add(("Conv", 3, 1, 1, 1))
    for kind in kinds:
        add(kind)
    add(("Conv", 1, 1, 0, 0), into=1)
    nodes.append(helper.make_node("Abs", [nodes[-1].output[0]], ["y"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, rows, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, "h", "w"])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def cut(model: ModelProto, band: int = _BAND) -> ModelProto:
    """``banded``, of protobufs."""
    return ir.to_proto(banded(ir.from_proto(model), band))


def run(model: ModelProto, frames: np.ndarray, name: str = "x") -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: frames})


def counts(model: ModelProto) -> list[int]:
    """Into how many bands each chain is cut."""
    return [len(n.input) for n in model.graph.node if n.op_type == "Concat" and n.name.endswith("@bands")]


def widest(model: ModelProto) -> int:
    """Bytes for a frame."""
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    return max(4 * prod(d.dim_value for d in v.type.tensor_type.shape.dim[1:]) for v in values)


@settings(max_examples=60, deadline=None)
@given(st.lists(_LAYERS, max_size=4), st.integers(20_000, 200_000))
def test_any_chain_gives_the_same_numbers(kinds: list[Kind], band: int) -> None:
    model = chain(kinds)
    found = cut(model, band)
    onnx.checker.check_model(found, full_check=True)
    frames = np.random.default_rng(1).standard_normal((2, 2, 96, 96)).astype(np.float32)
    (wanted,), (got,) = run(model, frames), run(found, frames)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_what_lies_between_is_no_wider_than_a_band() -> None:
    model = chain([("Clip", 1, 1, 0, 0), ("Conv", 3, 2, 0, 1)])
    whole = widest(model)
    found = cut(model, whole // 4)
    assert counts(found) == [4]
    assert widest(found) < 1.2 * whole / 4


def test_the_model_itself_is_left_alone() -> None:
    model = ir.from_proto(chain([("Conv", 3, 1, 1, 1)]))
    before = ir.to_proto(model)
    assert len(banded(model, 40_000).graph) > len(model.graph)
    assert ir.to_proto(model) == before


def test_rows_are_not_computed_twice_and_more() -> None:
    """Seven kernels of five rows reach so far that bands of four rows would compute the first layer's six times."""
    assert counts(cut(chain([("Conv", 5, 1, 2, 2)] * 7), 3_000)) == []


def test_what_is_read_elsewhere_too_is_kept_whole() -> None:
    model = chain([("Conv", 3, 1, 1, 1), ("Conv", 3, 1, 1, 1)])
    assert counts(cut(model, 80_000)) == [4]
    for node in model.graph.node[2:5]:
        model.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, ["N", 8, 96, 96]))
    assert cut(model, 80_000).graph.node == model.graph.node


def test_a_graph_of_free_height_stays() -> None:
    model = chain([])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    assert cut(model, 1_000).graph.node == model.graph.node


@pytest.mark.slow
def test_the_exported_graph(graph: bytes, frames: np.ndarray) -> None:
    whole = onnx.load_from_string(graph)
    found = cut(whole)
    onnx.checker.check_model(found, full_check=True)
    assert len(counts(found)) >= 3 and widest(found) < widest(whole) / 3
    for got, wanted in zip(run(found, frames, "image"), run(whole, frames, "image"), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5)
