"""g as one ONNX graph, from uint8 pixels to score, anomaly map and head scores."""

import ast
import logging
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, numpy_helper

from ahl_export.errors import ExportError
from ahl_train.unified import Unified

OPSET = 18
INPUT = "image"
OUTPUTS = ("score", "anomaly_map", "head_scores")
_LEAST_SIDE = 16  # px
_SCOPES = "pkg.torch.onnx.name_scopes"
_CONSTANTS = ("extractor.preprocess.gain", "extractor.preprocess.bias")


def to_onnx(model: Unified) -> bytes:
    """The graph of docs/architecture.md: N, H and W free, checked in full by onnx.checker. ExportError.

    Nodes are named MODULE/TENSOR after the module that they come from; nothing of the machine is left in it.
    """
    # Not square, and a batch above 1: a size seen twice would be taken for one.
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
        graph = program.model_proto
        _name_nodes(graph, {name for name, _ in model.named_modules()})
        _scalars(graph)
        onnx.checker.check_model(graph, full_check=True)
    except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError) as error:
        raise ExportError(f"the model cannot be made an ONNX graph: {str(error).splitlines()[0]}") from error
    return graph.SerializeToString()


def module_of(node: NodeProto) -> str:
    """The module that a node of ``to_onnx``'s graph comes from, by its dotted name; "" for the model itself."""
    return node.name.rpartition("/")[0]


def own_constants(model: ModelProto, inputs: Sequence[int]) -> ModelProto:
    """The model, changed: convolutions that share constants, as those of both scales do, get copies of their own.

    `inputs`: 1 for weights, 2 for biases.
    """
    by_name = {i.name: i for i in model.graph.initializer}
    taken: set[str] = set()
    for node in (n for n in model.graph.node if n.op_type == "Conv"):
        for k, name in enumerate(node.input):
            if k in inputs and name in taken:
                copy = model.graph.initializer.add()
                copy.CopyFrom(by_name[name])
                copy.name = node.input[k] = f"{name}@{node.output[0]}"
            taken.add(name)
    return model


def _without_inplace(model: torch.nn.Module) -> None:
    """The same function; but torch traces an in-place activation through 20 operators, for two thirds of the time."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False


def _name_nodes(model: ModelProto, modules: set[str]) -> None:
    """Name nodes after modules, and drop what torch wrote on them: stack traces with the paths of this machine."""
    for node in model.graph.node:
        scopes = next((ast.literal_eval(p.value) for p in node.metadata_props if p.key == _SCOPES), [""])
        within = [s for s in scopes if s in modules]
        node.name = f"{within[-1] if within else ''}/{node.output[0]}"
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]


def _scalars(model: ModelProto) -> None:
    """One number where all channels share it: engines that keep channels last broadcast a vector of 3 very slowly."""
    shared = {
        i.name: array[(0,) * array.ndim]
        for i in model.graph.initializer
        if i.name in _CONSTANTS and np.ptp(array := numpy_helper.to_array(i)) == 0
    }
    for initializer in model.graph.initializer:
        if initializer.name in shared:
            initializer.CopyFrom(numpy_helper.from_array(np.array(shared[initializer.name]), initializer.name))
    for value in [v for v in model.graph.value_info if v.name in shared]:
        model.graph.value_info.remove(value)
