"""The graph for TensorRT: pixels are cast before anything else, and the backbone is typed as float16."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir import DataType, TensorType
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ahl_export.errors import ExportError
from ahl_export.graph.onnx_graph import INPUT, constant, from_bytes, module_of, to_bytes, with_shapes

_BACKBONE = "extractor.backbone"
_CAST = f"{INPUT}@float32"
# Operators that compute the same in float16, except for rounding, if every float input is float16.
_HALF = {
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "MaxPool",
    "Mul",
    "Relu",
    "Sigmoid",
}


def for_tensorrt(graph: bytes, precision: str) -> bytes:
    """``to_onnx``'s graph for TensorRT 10, 11 and TensorRT for RTX; `precision`: float16 or float32.

    Strongly typed networks compute in the graph's types, so float16 is written into the graph, for the backbone only.
    Preprocessing, pooling and heads stay in float32: densities whiten by small standard deviations, which float16
    would round. Inputs and outputs keep their types. ExportError for another precision or a graph without a backbone.
    """
    if precision not in ("float16", "float32"):
        raise ExportError(f"precision {precision!r}: choose float16 or float32")
    model = from_bytes(graph)
    _cast_first(model.graph)
    if precision == "float16":
        _halve(with_shapes(model))
    return to_bytes(model, check=True)


def _cast_first(graph: ir.Graph) -> None:
    """Cast the input first: TensorRT takes uint8 only if a cast follows at once. Cast and transpose commute."""
    image = graph.inputs[0]
    turned = list(_turned(image))
    casts = [(node, value) for value in (image, *turned) for node in value.consumers() if node.op_type == "Cast"]
    if not casts:
        raise ExportError(f"the graph does not cast {INPUT}: it was not made by ahl export")
    for node, value in casts:
        node.outputs[0].replace_all_uses_with(value)
        graph.remove(node, safe=True)
    for value in turned:
        value.type = TensorType(DataType.FLOAT)
    whole = ir.val(_CAST, DataType.FLOAT, image.shape)
    image.replace_all_uses_with(whole)
    graph.insert_before(graph[0], _cast("", image, whole, DataType.FLOAT))


def _turned(value: ir.Value) -> Iterator[ir.Value]:
    """The outputs of all transposes of a tensor, also of one after another."""
    for node in value.consumers():
        if node.op_type == "Transpose":
            yield node.outputs[0]
            yield from _turned(node.outputs[0])


def _halve(model: ir.Model) -> None:
    """Make the backbone's nodes float16, with casts for tensors that enter and leave."""
    inside = [n for n in model.graph if n.op_type in _HALF and module_of(n).startswith(_BACKBONE)]
    if not inside:
        raise ExportError(f"the graph has no nodes of {_BACKBONE}: it was not made by ahl export")
    halves: dict[ir.Value, ir.Value] = {}  # float16 versions, by float32 tensor
    for node in inside:
        for k, value in enumerate(node.inputs):
            if value is not None and value.dtype == DataType.FLOAT:
                if value not in halves:
                    halves[value] = _narrowed(model.graph, node, value)
                node.replace_input_with(k, halves[value])
        for value in node.outputs:
            if value.dtype == DataType.FLOAT:
                halves[_widened(node, value)] = value
    RemoveUnusedNodesPass()(model)  # casts between two nodes of the backbone, constants in float32


def _narrowed(graph: ir.Graph, node: ir.Node, value: ir.Value) -> ir.Value:
    """The float32 tensor in float16: a constant is rounded, any other tensor is cast before `node`."""
    if value.const_value is None:
        half = ir.val(_half(value), DataType.FLOAT16, value.shape)
        node.prepend(_cast(module_of(node), value, half, DataType.FLOAT16))
        return half
    with np.errstate(over="ignore"):
        rounded = value.const_value.numpy().astype(np.float16)
    if not np.isfinite(rounded).all():
        raise ExportError(f"{value.name} has values beyond float16's range: export with --trt-precision float32")
    return constant(graph, _half(value), rounded)


def _widened(node: ir.Node, value: ir.Value) -> ir.Value:
    """Make the output of `node` float16, and let its readers read a cast to float32. Returns the cast's output."""
    whole = ir.val(value.name, DataType.FLOAT, value.shape)
    value.replace_all_uses_with(whole, replace_graph_outputs=True)
    value.name, value.type = _half(value), TensorType(DataType.FLOAT16)
    node.append(_cast(module_of(node), value, whole, DataType.FLOAT))
    return whole


def _half(value: ir.Value) -> str:
    return f"{value.name}@float16"


def _cast(module: str, source: ir.Value, target: ir.Value, to: DataType) -> ir.Node:
    name = f"{module}/{source.name}->{target.name}"
    return ir.node("Cast", [source], {"to": int(to)}, outputs=[target], name=name)
