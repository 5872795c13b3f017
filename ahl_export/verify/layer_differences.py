"""Finds where an artefact starts to differ from the model: compares intermediate outputs layer by layer."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ahl_export.graph.onnx_graph import module_of, name_of, to_bytes
from ahl_export.verify.parity import Pixels
from ahl_train.unified import Unified

Arrays = list[NDArray[np.float32]]
# From names of the graph's tensors to a function that returns them for one frame.
Probe = Callable[[Sequence[str]], Callable[[Pixels], Arrays]]

_SHARE = 0.1  # of the largest difference: the difference begins at the first layer that reaches this


def probe(model: ir.Model, names: Sequence[str]) -> Callable[[Pixels], Arrays]:
    """A function that returns the named tensors of an ONNX graph for one frame, by ONNX Runtime."""
    import onnxruntime

    wider = model.clone()
    tensors = ir.convenience.create_value_mapping(wider.graph)
    for tensor in (tensors[name] for name in names if not tensors[name].is_graph_output()):
        tensor.type, tensor.shape = ir.TensorType(ir.DataType.FLOAT), None
        wider.graph.outputs.append(tensor)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(to_bytes(wider), options, providers=["CPUExecutionProvider"])
    return lambda frame: session.run(list(names), {"image": frame[None]})


def from_model(model: Unified, graph: ir.Model, other: Probe, frame: Pixels) -> str:
    """Where an artefact of ``to_onnx``'s graph departs from the model in torch, in one clause."""
    layers = _layers(graph)
    calls: dict[str, Arrays] = {}
    modules = {module for module, _ in layers}
    hooks = [
        found.register_forward_hook(
            lambda _, __, output, name=name: calls.setdefault(name, []).extend(
                t.numpy() for t in (output if isinstance(output, tuple) else (output,))
            )
        )
        for name, found in model.named_modules()
        if name in modules
    ]
    try:
        outputs = model.score(torch.from_numpy(np.array(frame))[None])
    finally:
        for hook in hooks:
            hook.remove()
    calls |= {name_of(o): [t.numpy()] for o, t in zip(graph.graph.outputs, outputs, strict=True)}
    got = other([tensor for _, tensor in layers])(frame)
    return _worst(
        [(module, *_closest_shape(calls[module], value)) for (module, _), value in zip(layers, got, strict=True)]
    )


def from_graph(graph: ir.Model, other: Probe, frame: Pixels) -> str:
    """Where an artefact departs from the float32 graph, in one clause."""
    layers = _layers(graph, activated=True)
    tensors = [tensor for _, tensor in layers]
    wanted, got = probe(graph, tensors)(frame), other(tensors)(frame)
    return _worst([(name, w, g) for (name, _), w, g in zip(layers, wanted, got, strict=True)])


def _layers(graph: ir.Model, *, activated: bool = False) -> list[tuple[str, str]]:
    """Module and tensor of the preprocessed frame, of each convolution, and of the outputs, in graph order.

    `activated`: after the clip that follows a convolution, as a quantised graph merges both.
    """
    convolutions = [node for node in graph.graph if node.op_type == "Conv"]
    preprocessing = convolutions[0].predecessors()[0]
    found = [(n, _activated(n.outputs[0]) if activated else n.outputs[0]) for n in convolutions]
    layers = [(module_of(n), name_of(value)) for n, value in [(preprocessing, preprocessing.outputs[0]), *found]]
    return [*layers, *((name_of(o), name_of(o)) for o in graph.graph.outputs)]


def _activated(value: ir.Value) -> ir.Value:
    """The output of the clip that reads a tensor; the tensor itself if no clip reads it."""
    return next((n.outputs[0] for n in value.consumers() if n.op_type in ("Clip", "Relu")), value)


def _closest_shape(calls: Arrays, value: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The module's output of this shape, from its calls at both scales: the graph leaves out unused outputs."""
    return next((c for c in calls if c.shape == value.shape), calls[0]), value


def _worst(layers: Sequence[tuple[str, NDArray[np.float32], NDArray[np.float32]]]) -> str:
    """One clause on the layers' relative errors (root mean square): the first to reach a tenth of the largest."""
    errors = []
    for name, wanted, got in layers:
        if wanted.shape != got.shape:
            return f"it begins at {name}, of shape {got.shape} where the model has {wanted.shape}"
        size = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64))))
        errors.append(float(np.sqrt(np.mean(np.square(wanted.astype(np.float64) - got)))) / max(size, 1e-12))
    worst = int(np.argmax(errors))
    # Outputs are logarithms and deviations, which may be near 0. An error of more than their size counts as their size.
    begins = next(i for i, e in enumerate(errors) if not e < _SHARE * min(errors[worst], 1.0))
    clause = f"it begins at {layers[begins][0]}, off by {errors[begins]:.1e} of its size"
    return clause if begins == worst else f"{clause}, and is largest at {layers[worst][0]}, by {errors[worst]:.1e}"
