"""The steps of export: g to a graph, the graph to artefacts, each proven and calibrated, and a bundle of them."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ahl_export.artefact import BuiltArtefact, ProvenArtefact, Targets, finish
from ahl_export.backends import tensorrt_rtx
from ahl_export.backends import triton as repository
from ahl_export.errors import ExportError
from ahl_export.graph.bands import banded
from ahl_export.graph.onnx_graph import INPUT, OPSET, OUTPUTS, from_bytes, to_bytes, to_onnx
from ahl_export.options import ExportOptions
from ahl_export.verify.layer_differences import probe
from ahl_export.verify.parity import Bounds, Evidence, spread
from ahl_runtime.bundle.bundle import Bundle, write_bundle
from ahl_runtime.bundle.signature import load_private
from ahl_runtime.core.encode import png
from ahl_runtime.core.memory import trim
from ahl_runtime.engines.ort import OrtEngine
from ahl_train.data.images import load
from ahl_train.run import Run, load_run
from calibration.threshold import checked_rates

_REFERENCES = 3
_FLOAT32 = Bounds(score=1e-4, map=1e-4, flips=0.0, rank=1 - 1e-6)
_DEFAULTS = ExportOptions()


def export(
    run_dir: Path,
    out: Path,
    options: ExportOptions = _DEFAULTS,
    report: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Write the bundle of a run, signed if the options say so. Also add its graph to a Triton repository, if they do.

    `report`: called with one line for each step. Raises ExportError, TrainError, CalibrationError, SigningError or
    BundleError; then nothing is written.
    """
    _check_writable(out)
    checked_rates(options.alpha, options.confidence, None)
    gpus = tensorrt_rtx.targets(options.trt_rtx)
    if options.triton is not None:
        repository.check_writable(options.triton)
    key = load_private(options.sign) if options.sign else None
    run = load_run(run_dir)
    if len(run.calibration_normals) < 2:
        raise ExportError(
            f"{run_dir} held no normals out to calibrate on: train again without --calibration 0, or with "
            "--calibrate cross"
        )
    graph = to_onnx(run.model)
    evidence = Evidence(run)
    references = {f"reference/{i}.png": load(s) for i, s in enumerate(run.calibration_normals[:_REFERENCES])}
    finished: list[ProvenArtefact] = []
    model, targets = from_bytes(graph), Targets(options.alpha, options.confidence, options.tail)
    for built in _artefacts(graph, options, gpus, evidence, finished, report):
        first = finished[0] if finished else None
        finished.append(finish(built, evidence, targets, references, model, first))
        del built  # frees its engine before the next one is built
        trim()
        report(finished[-1].line)
        if first is None:
            report(finished[0].fields["decision"]["promise"])
    fields = {
        "name": out.stem,
        "graph": {
            "opset": OPSET,
            "inputs": [INPUT],
            "outputs": list(OUTPUTS),
            "heads": list(run.model.head_names),
        },
        "artefacts": [f.fields for f in finished],
        "provenance": _provenance(run),
    }
    members = {name: png(pixels) for name, pixels in references.items()}
    for artefact in finished:
        members |= artefact.members
    bundle = write_bundle(out, fields, members, sign=key)
    if options.triton is not None:
        version = repository.write(bundle, options.triton)
        report(f"written: {version}; next: tritonserver --model-repository={options.triton}")
    return bundle


def _artefacts(
    graph: bytes,
    wanted: ExportOptions,
    gpus: tuple[str, ...],
    evidence: Evidence,
    finished: list[ProvenArtefact],
    report: Callable[[str], None],
) -> Iterator[BuiltArtefact]:
    """Build each artefact after the one before is finished, the float32 graph first.

    Graphs for CPUs are cut into bands.
    """
    model = from_bytes(graph)
    data = to_bytes(banded(model))
    yield BuiltArtefact(
        "onnxruntime",
        {"model.onnx": data},
        "float32",
        _FLOAT32,
        1e-4,
        OrtEngine(data),
        probe=partial(probe, model),
        parallel=lambda: OrtEngine(data, 1),
    )
    unit = spread(finished[0].survey.normal)
    if wanted.openvino:
        from ahl_export.backends import openvino as openvino_ir

        yield openvino_ir.build(data, unit)
    if wanted.int8:
        from ahl_export.backends import int8 as quantize

        yield quantize.build(graph, evidence, unit, report)
    if wanted.trt:
        from ahl_export.backends import tensorrt as tensorrt_engine

        yield tensorrt_engine.build(
            graph,
            evidence,
            wanted.trt_precision,
            report,
            unit=unit,
            compatible=wanted.trt_compat,
            hardware=wanted.trt_hardware_compat,
        )
    if gpus:
        yield tensorrt_rtx.build(graph, evidence, gpus, wanted.trt_precision, report, unit=unit)


def _provenance(run: Run) -> dict[str, Any]:
    counts = {
        "train_normal": len(run.split.train_normal),
        "calibration_normal": len(run.split.calibration_normal),
        "train_anomaly": len(run.split.train_anomaly),
    }
    # Paths mean nothing on another machine; the weights' digest and the counts do.
    settings = {**run.config.to_json(), "backbone_weights": None, "feedback": None}
    kept = ("versions", "backbone_digest", "supersample")
    folds = [len(f.normals) for f in run.folds]
    return {"settings": settings, "counts": counts, "folds": folds, **{k: run.record[k] for k in kept}}


def _check_writable(out: Path) -> None:
    """ExportError, before minutes of work, if `out` cannot be written."""
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ExportError(f"{out} cannot be written: give --out a file in a folder that exists and is writable")
