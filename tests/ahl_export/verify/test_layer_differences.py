"""An artefact that disagrees is traced to the layer where it begins to."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from ahl_export.verify.layer_differences import from_graph, from_model, probe
from ahl_export.verify.parity import Evidence, Pixels
from ahl_train.run import Run

pytestmark = pytest.mark.slow

_LAYER = "extractor.backbone.net.blocks.3.1.conv_pw"


def tampered(graph: bytes, constant: str) -> ModelProto:
    """The graph with one constant a little off."""
    model = onnx.load_from_string(graph)
    (found,) = (i for i in model.graph.initializer if i.name == constant)
    found.CopyFrom(numpy_helper.from_array(np.asarray(numpy_helper.to_array(found) * np.float32(1.1)), constant))
    return model


def test_a_changed_weight_is_named(run: Run, graph: bytes, evidence: Evidence) -> None:
    other = partial(probe, tampered(graph, f"{_LAYER}.weight"))
    model = onnx.load_from_string(graph)
    assert from_graph(model, other, evidence.gate[0]).startswith(f"it begins at {_LAYER}, off by ")
    assert from_model(run.model, model, other, evidence.gate[0]).startswith(f"it begins at {_LAYER}, off by ")


def test_changed_preprocessing_is_named(run: Run, graph: bytes, evidence: Evidence) -> None:
    other = partial(probe, tampered(graph, "extractor.preprocess.gain"))
    said = from_model(run.model, onnx.load_from_string(graph), other, evidence.gate[0])
    assert said.startswith("it begins at extractor.preprocess, off by ")


def test_the_graph_itself_is_off_by_rounding_alone(run: Run, graph: bytes, evidence: Evidence) -> None:
    model = onnx.load_from_string(graph)
    said = from_model(run.model, model, partial(probe, model), evidence.gate[0])
    errors = [float(word.strip(",")) for word in said.split() if "e-" in word]
    assert errors and max(errors) < 1e-4


def test_an_output_of_another_shape_is_named(run: Run, graph: bytes, evidence: Evidence) -> None:
    model = onnx.load_from_string(graph)
    last = model.graph.output[-1].name

    def shorter(names: Sequence[str]) -> Callable[[Pixels], list[np.ndarray]]:
        found = probe(model, names)
        return lambda frame: [t[:, :1] if n == last else t for n, t in zip(names, found(frame), strict=True)]

    said = from_model(run.model, model, shorter, evidence.gate[0])
    assert said.startswith(f"it begins at {last}, of shape (1, 1") and " where the model has (1, " in said
