"""An artefact that disagrees is traced to the layer where it begins to."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir
import pytest

from ahl_export.graph.onnx_graph import array_of, from_bytes
from ahl_export.verify.layer_differences import from_graph, from_model, probe
from ahl_export.verify.parity import Evidence, Pixels
from ahl_train.run import Run

pytestmark = pytest.mark.slow

_LAYER = "extractor.backbone.net.blocks.3.1.conv_pw"


def tampered(graph: bytes, constant: str) -> ir.Model:
    """The graph with one constant a little off."""
    model = from_bytes(graph)
    found = model.graph.initializers[constant]
    found.const_value = ir.Tensor(np.asarray(array_of(found) * np.float32(1.1)), name=constant)
    return model


def test_a_changed_weight_is_named(run: Run, graph: bytes, evidence: Evidence) -> None:
    other = partial(probe, tampered(graph, f"{_LAYER}.weight"))
    model = from_bytes(graph)
    assert from_graph(model, other, evidence.gate[0]).startswith(f"it begins at {_LAYER}, off by ")
    assert from_model(run.model, model, other, evidence.gate[0]).startswith(f"it begins at {_LAYER}, off by ")


def test_changed_preprocessing_is_named(run: Run, graph: bytes, evidence: Evidence) -> None:
    other = partial(probe, tampered(graph, "extractor.preprocess.gain"))
    said = from_model(run.model, from_bytes(graph), other, evidence.gate[0])
    assert said.startswith("it begins at extractor.preprocess, off by ")


def test_the_graph_itself_is_off_by_rounding_alone(run: Run, graph: bytes, evidence: Evidence) -> None:
    model = from_bytes(graph)
    said = from_model(run.model, model, partial(probe, model), evidence.gate[0])
    errors = [float(word.strip(",")) for word in said.split() if "e-" in word]
    assert errors and max(errors) < 1e-4


def test_an_output_of_another_shape_is_named(run: Run, graph: bytes, evidence: Evidence) -> None:
    model = from_bytes(graph)
    last = model.graph.outputs[-1].name

    def shorter(names: Sequence[str]) -> Callable[[Pixels], list[np.ndarray]]:
        found = probe(model, names)
        return lambda frame: [t[:, :1] if n == last else t for n, t in zip(names, found(frame), strict=True)]

    said = from_model(run.model, model, shorter, evidence.gate[0])
    assert said.startswith(f"it begins at {last}, of shape (1, 1") and " where the model has (1, " in said
