"""The graph as OpenVINO's IR, with the weights of large convolutions in float16."""

import tempfile
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ahl_export.artefact import BuiltArtefact
from ahl_export.errors import ExportError
from ahl_export.graph.onnx_graph import from_bytes, own_constants, to_bytes
from ahl_export.verify.parity import Bounds
from ahl_runtime.engines.base import reason
from ahl_runtime.engines.openvino import OpenVinoEngine, read

# Float16 keeps 11 bits of a weight. Its effect on scores was measured: see docs/results/export.md.
_BOUNDS = Bounds(score=0.05, map=0.1, flips=0.01, rank=0.999)
# Smaller convolutions stay in float32: the early ones have 3% of all weights and make most of the difference.
_FEW = 10_000


def build(graph: bytes, unit: float = 1.0) -> BuiltArtefact:
    """The IR of an ONNX graph for one frame of any size. `unit`: of its bounds. ExportError if OpenVINO cannot read it.

    Each convolution gets its own bias: OpenVINO adds a bias that bands or scales share in a separate pass.
    """
    import openvino

    whole = to_bytes(own_constants(from_bytes(graph), (2,)))
    try:
        model = openvino.Core().read_model(model=whole, weights=b"")
        _simplify(model)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read the graph: {reason(error)}") from error
    _halve(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, str(path), compress_to_fp16=False)  # would compress all weights; _halve chooses
        files = {f"engines/openvino{p.suffix}": p.read_bytes() for p in (path, path.with_suffix(".bin"))}
    xml, weights = files.values()
    loaded = read(xml, weights)
    engine = OpenVinoEngine(loaded)
    extras = {"openvino": version("openvino"), "device": "CPU"}
    precision = "large convolutions' weights float16, arithmetic float32"
    bounds = replace(_BOUNDS, unit=unit)
    parallel = partial(OpenVinoEngine, loaded, streams=engine.threads)
    return BuiltArtefact("openvino", files, precision, bounds, 1e-3, engine, extras, parallel=parallel)


def _simplify(model: Any) -> None:
    """Fold constants for scoring one frame at a time. This removes half the nodes, which would cost a device time.

    On a CPU a batch is no faster. With N fixed OpenVINO plans the backbone's memory ahead and takes a tenth less time.
    """
    from openvino import passes

    model.reshape({"image": [1, -1, -1, 3]})
    folding = passes.Manager()
    folding.register_pass(passes.ConstantFolding())
    folding.run_passes(model)


def _halve(model: Any) -> None:
    """Store the weights of large convolutions in float16. They become float32 when the IR is loaded.

    The densities stay in float32: whitening divides by small standard deviations, which float16 would round.
    """
    from openvino import opset13

    halved: dict[str, Any] = {}  # by name: both scales and all bands share one
    for layer in model.get_ordered_ops():
        if layer.get_type_name() not in ("Convolution", "GroupConvolution"):
            continue
        weights = layer.input_value(1).get_node()
        if weights.data.size < _FEW:
            continue
        name = weights.get_friendly_name()
        if name not in halved:
            halved[name] = opset13.convert(opset13.constant(weights.data.astype(np.float16)), "f32")
        layer.input(1).replace_source_output(halved[name].output(0))
