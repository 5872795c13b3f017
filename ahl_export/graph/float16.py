"""The graph as TensorRT takes it: pixels cast before anything else, and the backbone in float16 by its own types."""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ahl_export.errors import ExportError
from ahl_export.graph.onnx_graph import INPUT, module_of

_BACKBONE = "extractor.backbone"
_CAST = f"{INPUT}@float32"
# Operators that compute the same in float16, but for its rounding, with float16 for every float input.
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

    Strongly typed networks compute in the types of the graph, so float16 is written into it: into the backbone alone.
    Preprocessing, pooling and heads stay in float32: densities whiten by small standard deviations, which float16
    would round. Inputs and outputs keep their types. ExportError for another precision or a graph without a backbone.
    """
    if precision not in ("float16", "float32"):
        raise ExportError(f"precision {precision!r}: choose float16 or float32")
    model = onnx.load_from_string(graph)
    _cast_first(model)
    if precision == "float16":
        _halve(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _cast_first(model: ModelProto) -> None:
    """TensorRT takes uint8 only where a cast follows at once; whether cast or transpose comes first changes nothing."""
    graph = model.graph
    after: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and _from_image(node, graph.node):
            after[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    if not after:
        raise ExportError(f"the graph does not cast {INPUT}: it is not that of ahl export")
    for node in kept:
        node.input[:] = [after.get(name, name) for name in node.input]
        node.input[:] = [_CAST if name == INPUT else name for name in node.input]
    cast = helper.make_node("Cast", [INPUT], [_CAST], name=f"/{_CAST}", to=TensorProto.FLOAT)
    _replace(model, [cast, *kept], {i for n in kept for i in n.output} - {o.name for o in graph.output})


def _from_image(node: NodeProto, nodes: list[NodeProto]) -> bool:
    """Does it cast the image itself, turned about at most?"""
    source = node.input[0]
    made = {output: n for n in nodes for output in n.output}
    while source in made and made[source].op_type == "Transpose":
        source = made[source].input[0]
    return source == INPUT


def _halve(model: ModelProto) -> None:
    """The backbone's nodes in float16, with casts where tensors go in and out."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        v.name for v in (*graph.value_info, *graph.output) if v.type.tensor_type.elem_type == TensorProto.FLOAT
    } | {i.name for i in graph.initializer if i.data_type == TensorProto.FLOAT}
    constants = {i.name: i for i in model.graph.initializer}
    inside = [n.op_type in _HALF and module_of(n).startswith(_BACKBONE) for n in model.graph.node]
    if not any(inside):
        raise ExportError(f"the graph has no nodes of {_BACKBONE}: it is not that of ahl export")
    halved = {o for n, half in zip(model.graph.node, inside, strict=True) if half for o in n.output if o in floats}
    wanted_whole = {
        i for n, half in zip(model.graph.node, inside, strict=True) if not half for i in n.input if i in halved
    } | ({o.name for o in model.graph.output} & halved)
    nodes: list[NodeProto] = []
    there: set[str] = set(halved)  # tensors that exist in float16
    for node, half in zip(model.graph.node, inside, strict=True):
        if not half:
            nodes.append(node)
            continue
        for name in dict.fromkeys(i for i in node.input if i in floats and i not in there):
            there.add(name)
            if name in constants:
                with np.errstate(over="ignore"):
                    rounded = numpy_helper.to_array(constants[name]).astype(np.float16)
                if not np.isfinite(rounded).all():
                    raise ExportError(f"{name} has values beyond float16's range: export with --trt-precision float32")
                model.graph.initializer.append(numpy_helper.from_array(rounded, _half(name)))
            else:
                nodes.append(_cast(node, name, _half(name), TensorProto.FLOAT16))
        node.input[:] = [_half(i) if i in floats else i for i in node.input]
        outputs = [o for o in node.output if o in floats]
        node.output[:] = [_half(o) if o in floats else o for o in node.output]
        nodes.append(node)
        nodes += [_cast(node, _half(o), o, TensorProto.FLOAT) for o in outputs if o in wanted_whole]
    used = {i for n in nodes for i in n.input}
    left = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
    _replace(model, nodes, halved - wanted_whole)


def _half(name: str) -> str:
    return f"{name}@float16"


def _cast(node: NodeProto, source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{module_of(node)}/{source}->{target}", to=to)


def _replace(model: ModelProto, nodes: list[NodeProto], stale: set[str]) -> None:
    """Put `nodes` in; `stale`: tensors whose recorded types no longer hold."""
    kept = [node.SerializeToString() for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(NodeProto.FromString(node) for node in kept)
    for value in [v for v in model.graph.value_info if v.name in stale]:
        model.graph.value_info.remove(value)
