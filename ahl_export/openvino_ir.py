"""The graph as OpenVINO's IR, the weights of its convolutions stored in float16."""

import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from ahl_export.artefact import Built
from ahl_export.errors import ExportError
from ahl_export.onnx_graph import own_constants
from ahl_export.parity import Bounds
from ahl_runtime.engines.base import reason
from ahl_runtime.engines.openvino import OpenVinoEngine

# Float16 keeps 11 bits of a weight; what that does to the scores was measured, see docs/export.md.
_BOUNDS = Bounds(score=0.1, map=0.1, flips=0.01, rank=0.999)


def build(graph: bytes) -> Built:
    """The IR of an ONNX graph, N, H and W free. ExportError if OpenVINO cannot read the graph.

    Each convolution gets its own bias, as OpenVINO adds one that bands or scales share in a pass of its own.
    The densities stay in float32: whitening divides by small standard deviations, which float16 would round.
    """
    import openvino

    try:
        model = openvino.Core().read_model(
            model=_compressed(own_constants(onnx.load_from_string(graph), (2,))), weights=b""
        )
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read the graph: {reason(error)}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, str(path), compress_to_fp16=False)  # all or nothing; _compressed chooses
        files = {f"engines/openvino{p.suffix}": p.read_bytes() for p in (path, path.with_suffix(".bin"))}
    xml, weights = files.values()
    engine = OpenVinoEngine(xml, weights)
    extras = {"openvino": version("openvino"), "device": "CPU"}
    precision = "convolution weights float16, arithmetic float32"
    beside = partial(OpenVinoEngine, xml, weights, streams=engine.threads)
    return Built("openvino", files, precision, _BOUNDS, 1e-3, engine, extras, beside=beside)


def _compressed(model: ModelProto) -> bytes:
    """The weights of convolutions in float16, cast to float32 where they are used."""
    weights = {n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    casts = []
    for initializer in model.graph.initializer:
        if initializer.name in weights:
            name = f"{initializer.name}@float16"
            half = numpy_helper.to_array(initializer).astype(np.float16)
            casts.append(onnx.helper.make_node("Cast", [name], [initializer.name], to=TensorProto.FLOAT))
            initializer.CopyFrom(numpy_helper.from_array(half, name))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    known = {c.output[0] for c in casts}
    for value in [v for v in model.graph.value_info if v.name in known]:
        model.graph.value_info.remove(value)
    return model.SerializeToString()
