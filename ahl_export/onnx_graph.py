"""g as one ONNX graph, from uint8 pixels to score, anomaly map and head scores."""

import logging
import warnings

import onnx
import torch

from ahl_export.errors import ExportError
from ahl_train.unified import Unified

OPSET = 18
INPUT = "image"
OUTPUTS = ("score", "anomaly_map", "head_scores")
_LEAST_SIDE = 16  # px


def to_onnx(model: Unified) -> bytes:
    """The graph of docs/architecture.md: N, H and W free, checked in full by onnx.checker. ExportError."""
    # Not square, and a batch above 1: a size seen twice would be taken for one.
    example = torch.zeros(2, 300, 260, 3, dtype=torch.uint8)
    free = {
        0: torch.export.Dim("N"),
        1: torch.export.Dim("H", min=_LEAST_SIDE),
        2: torch.export.Dim("W", min=_LEAST_SIDE),
    }
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
        onnx.checker.check_model(graph, full_check=True)
    except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError) as error:
        raise ExportError(f"the model cannot be made an ONNX graph: {str(error).splitlines()[0]}") from error
    return graph.SerializeToString()
