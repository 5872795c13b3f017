"""The graph as OpenVINO's IR, its weights stored in float16."""

import tempfile
from importlib.metadata import version
from pathlib import Path

from ahl_export.artefact import Built
from ahl_export.errors import ExportError
from ahl_export.parity import Bounds
from ahl_runtime.engines.openvino import OpenVinoEngine

# Float16 keeps 11 bits of a weight; what that does to the scores was measured, see docs/export.md.
_BOUNDS = Bounds(score=0.03, map=0.03, flips=0.01, rank=0.999)


def build(graph: bytes) -> Built:
    """The IR of an ONNX graph, N, H and W free. ExportError if OpenVINO cannot read the graph."""
    import openvino

    try:
        model = openvino.Core().read_model(model=graph, weights=b"")
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read the graph: {str(error).splitlines()[0]}") from error
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(model, str(xml), compress_to_fp16=True)
        files = {f"engines/openvino{p.suffix}": p.read_bytes() for p in (xml, xml.with_suffix(".bin"))}
    engine = OpenVinoEngine(*files.values())
    extras = {"openvino": version("openvino"), "device": "CPU"}
    return Built("openvino", files, "weights float16, arithmetic float32", _BOUNDS, 1e-3, engine, extras)
