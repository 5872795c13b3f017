"""g as one ONNX graph, from uint8 pixels to score, anomaly map and head scores."""

import ast
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnx_ir.passes.common.shape_inference import infer_shapes

from ahl_export.errors import ExportError
from ahl_train.unified import Unified

OPSET = 18
INPUT = "image"
OUTPUTS = ("score", "anomaly_map", "head_scores")
_LEAST_SIDE = 16  # px
_INVALID = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
_SCOPES = "pkg.torch.onnx.name_scopes"
_CONSTANTS = ("extractor.preprocess.gain", "extractor.preprocess.bias")


def to_onnx(model: Unified) -> bytes:
    """The graph of docs/reference/bundle.md: N, H and W free; onnx.checker checks it in full. ExportError.

    Nodes are named MODULE/TENSOR after the module that they come from. The graph holds nothing about this machine.
    """
    # Not square, and a batch above 1: torch would treat two equal sizes as one.
    example = torch.zeros(2, 300, 260, 3, dtype=torch.uint8)
    free = {
        0: torch.export.Dim("N"),
        1: torch.export.Dim("H", min=_LEAST_SIDE),
        2: torch.export.Dim("W", min=_LEAST_SIDE),
    }
    _without_inplace(model)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=(free,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        if program is None:
            raise ExportError("torch.onnx gave no graph: check the versions against constraints.txt")
        graph = program.model
        _name_nodes(graph, {name for name, _ in model.named_modules()})
        _scalars(graph.graph)
        return to_bytes(graph, check=True)
    except (torch.onnx.errors.OnnxExporterError, *_INVALID) as error:
        raise ExportError(f"the model cannot be made an ONNX graph: {str(error).splitlines()[0]}") from error


def from_bytes(data: bytes) -> ir.Model:
    """The model of an ONNX file's bytes. Its constants share the memory of `data`."""
    return ir.from_proto(onnx.load_from_string(data))


def to_bytes(model: ir.Model, *, check: bool = False) -> bytes:
    """The bytes of an ONNX file. `check`: check in full by onnx.checker; ValidationError, InferenceError."""
    proto = ir.to_proto(model)
    if check:
        onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


def with_shapes(model: ir.Model) -> ir.Model:
    """The model with types and shapes on its tensors, as far as onnx can infer them."""
    return infer_shapes(model, check_type=False, strict_mode=False, data_prop=False)


def module_of(node: ir.Node) -> str:
    """The dotted name of the module that a node of ``to_onnx``'s graph comes from; "" for the model itself."""
    return (node.name or "").rpartition("/")[0]


def name_of(value: ir.Value | None) -> str:
    """A tensor's name; "" for an input that is left out."""
    return (value and value.name) or ""


def array_of(value: ir.Value | None) -> NDArray[Any]:
    """A constant's values. ExportError if the tensor is not a constant."""
    if value is None or value.const_value is None:
        raise ExportError(f"{name_of(value) or 'an input'} is not a constant: the graph was not made by ahl export")
    return value.const_value.numpy()


def constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """A new constant of the graph, which shares the array's memory. ValueError if the graph has one of that name."""
    value = ir.val(name, const_value=ir.Tensor(array, name=name))
    graph.register_initializer(value)
    return value


def own_constants(model: ir.Model, inputs: Sequence[int]) -> ir.Model:
    """The model, changed: convolutions that share constants, as those of both scales do, get their own copies.

    `inputs`: 1 for weights, 2 for biases.
    """
    taken: set[ir.Value] = set()
    for node in (n for n in model.graph if n.op_type == "Conv"):
        for k, value in enumerate(node.inputs):
            if value is None or k not in inputs:
                continue
            if value in taken:
                name = f"{value.name}@{node.outputs[0].name}"
                node.replace_input_with(k, constant(model.graph, name, array_of(value)))
            taken.add(value)
    return model


def _without_inplace(model: torch.nn.Module) -> None:
    """Switch in-place activations off: same result; torch traces each through 20 operators, 2/3 of the time."""
    module: Any  # only activations have the attribute
    for module in model.modules():
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False


def _name_nodes(model: ir.Model, modules: set[str]) -> None:
    """Name nodes after modules, and remove torch's metadata: stack traces with paths of this machine."""
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['']"))
        within = [s for s in scopes if s in modules]
        node.name = f"{within[-1] if within else ''}/{node.outputs[0].name}"
    ClearMetadataAndDocStringPass()(model)
    for value in ir.convenience.create_value_mapping(model.graph).values():
        value.metadata_props.clear()
    model.metadata_props.clear()


def _scalars(graph: ir.Graph) -> None:
    """Use one number if all channels share it: engines with channels last broadcast a vector of 3 very slowly."""
    for value in (graph.initializers[name] for name in _CONSTANTS if name in graph.initializers):
        array = array_of(value)
        if np.ptp(array) == 0:
            value.const_value, value.shape = ir.Tensor(array.reshape(-1)[0], name=value.name), ir.Shape(())
