"""Finishing an artefact: proven, or refused with the layer that departs; what cannot run here is marked unproven."""

from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir
import pytest
from scipy.stats import binomtest

from ahl_export.artefact import BuiltArtefact, ProvenArtefact, Targets, _too_many, finish
from ahl_export.errors import ExportError
from ahl_export.graph.onnx_graph import array_of, from_bytes, to_bytes
from ahl_export.verify.layer_differences import probe
from ahl_export.verify.parity import Bounds, Evidence, Pixels
from ahl_runtime.engines.ort import OrtEngine

pytestmark = pytest.mark.slow

TIGHT = Bounds(score=1e-4, map=1e-4, flips=0.0, rank=0.999)
TARGETS = Targets(alpha=0.1, confidence=0.95, tail=False)
LAYER = "extractor.backbone.net.blocks.2.0.conv_pw"


@pytest.fixture(scope="module")
def references(evidence: Evidence) -> dict[str, Pixels]:
    return {"reference/0.png": next(evidence.normals())}


@pytest.fixture(scope="module")
def built(graph: bytes) -> BuiltArtefact:
    model = from_bytes(graph)
    engine = OrtEngine(graph)
    return BuiltArtefact(
        "onnxruntime", {"model.onnx": graph}, "float32", TIGHT, 1e-4, engine, probe=partial(probe, model)
    )


@pytest.fixture(scope="module")
def first(graph: bytes, built: BuiltArtefact, evidence: Evidence, references: dict[str, Pixels]) -> ProvenArtefact:
    return finish(built, evidence, TARGETS, references, from_bytes(graph), None)


def other(graph: bytes, bounds: Bounds) -> BuiltArtefact:
    """The graph with one layer's weights rounded to a few values: an artefact that departs."""
    model = from_bytes(graph)
    weight = model.graph.initializers[f"{LAYER}.weight"]
    values = array_of(weight)
    step = np.abs(values).max() / 7
    weight.const_value = ir.Tensor((np.rint(values / step) * step).astype(np.float32), name=weight.name)
    data = to_bytes(model)
    return BuiltArtefact(
        "openvino", {"x.onnx": data}, "int4", bounds, 1e-2, OrtEngine(data), probe=partial(probe, model)
    )


def test_the_graph_itself_is_proven(first: ProvenArtefact) -> None:
    parity = first.fields["parity"]
    assert parity["score_max"] < 1e-4 and parity["flips"] == 0 and parity["rank_correlation"] == pytest.approx(1)
    assert set(first.members) == {"model.onnx", "calibration/onnxruntime.npz"}


def test_one_that_departs_is_refused_with_its_layer(
    graph: bytes, evidence: Evidence, references: dict[str, Pixels], first: ProvenArtefact
) -> None:
    with pytest.raises(ExportError, match=rf"openvino disagrees with the model: scores .*; it begins at {LAYER}, off"):
        finish(other(graph, TIGHT), evidence, TARGETS, references, from_bytes(graph), first)


def test_one_that_orders_frames_otherwise_is_refused(
    graph: bytes, evidence: Evidence, references: dict[str, Pixels], first: ProvenArtefact
) -> None:
    loose = other(graph, Bounds(score=1e9, map=1e9, flips=1.0, rank=0.9999999))
    with pytest.raises(ExportError, match=r"departs from the float32 graph: .* rank correlation 0\.\d+ .* begins at"):
        finish(loose, evidence, TARGETS, references, from_bytes(graph), first)


def test_one_within_wide_bounds_has_thresholds_of_its_own(
    graph: bytes, evidence: Evidence, references: dict[str, Pixels], first: ProvenArtefact
) -> None:
    loose = other(graph, Bounds(score=1e9, map=1e9, flips=1.0, rank=-1.0))
    finished = finish(loose, evidence, TARGETS, references, from_bytes(graph), first)
    assert finished.fields["decision"]["threshold"] == finished.threshold != first.threshold
    assert loose.run is not None
    scores = [float(loose.run.infer(pixels[None]).score[0]) for pixels in evidence.normals()]
    assert finished.survey.normal.tolist() == scores
    (reference,) = finished.fields["reference"]
    assert reference["score"] == scores[0]


def test_one_that_cannot_run_here_takes_the_firsts_thresholds_and_says_so(
    graph: bytes, evidence: Evidence, references: dict[str, Pixels], first: ProvenArtefact
) -> None:
    plan = replace(other(graph, TIGHT), engine="tensorrt", run=None)
    finished = finish(plan, evidence, TARGETS, references, from_bytes(graph), first)
    assert finished.fields["parity"] is None
    promised = first.fields["decision"]["promise"]
    said = f"not proven, as it could not run where it was exported; the float32 graph: {promised}"
    assert finished.fields["decision"] == first.fields["decision"] | {"promise": said}
    assert set(finished.members) == {"x.onnx"} and "cannot run here" in finished.line
    with pytest.raises(ExportError, match="nothing else proves the graph"):
        finish(plan, evidence, TARGETS, references, from_bytes(graph), None)


@pytest.mark.parametrize(
    ("flips", "n", "share", "refused"),
    [(0, 40, 0.0, False), (1, 40, 0.0, True), (2, 40, 0.01, False), (3, 40, 0.01, True), (9, 513, 0.01, False),
     (10, 513, 0.01, True), (5, 5, 1.0, False)],
)  # fmt: skip
def test_decisions_that_differ_are_refused_beyond_chance(flips: int, n: int, share: float, refused: bool) -> None:
    """As the binomial test of scipy has it."""
    assert _too_many(flips, n, share) is refused
    if flips and 0 < share < 1:
        assert (binomtest(flips, n, share, alternative="greater").pvalue < 0.05) == refused
