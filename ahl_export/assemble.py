"""The road of export: g to a graph, the proof, the thresholds, and the bundle that holds them."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import calibration
from ahl_export.errors import ExportError
from ahl_export.onnx_graph import INPUT, OPSET, OUTPUTS, to_onnx
from ahl_export.parity import Parity, frames_of, gate
from ahl_runtime.bundle import Bundle, write_bundle
from ahl_runtime.engines.ort import OrtEngine
from ahl_train.datasets import Sample
from ahl_train.images import load
from ahl_train.run import Run, load_run

_REFERENCES = 3
_FEWEST_FRAMES = 30  # calibration.with_frames


@dataclass(frozen=True)
class Exported:
    """What an export made and found."""

    bundle: Bundle
    parity: Parity


def export(
    run_dir: Path,
    out: Path,
    *,
    alpha: float = 0.01,
    confidence: float = 0.95,
    tail: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write the bundle of a run. ExportError, TrainError, CalibrationError or BundleError; then nothing is written."""
    _check_writable(out)
    run = load_run(run_dir)
    normals = run.split.calibration_normal
    if len(normals) < 2:
        raise ExportError(f"{run_dir} held no normals out to calibrate on: train again without --calibration 0")
    model = to_onnx(run.model)
    engine = OrtEngine(model)
    parity = gate(run.model, engine, frames_of(run.split, run.config.seed))
    report(f"parity: {parity.frames} frames, scores within {parity.score_max:.1e}, maps within {parity.map_max:.1e}")

    calibrated, map_range = _calibrate(engine, normals, alpha, confidence, tail)
    report(calibrated.promise.sentence)
    references = [(f"reference/{i}.png", load(s)) for i, s in enumerate(normals[:_REFERENCES])]
    npz = io.BytesIO()
    calibrated.save(npz)
    fields = {
        "name": out.stem,
        "graph": {
            "file": "model.onnx",
            "opset": OPSET,
            "inputs": [INPUT],
            "outputs": list(OUTPUTS),
            "heads": list(run.model.head_names),
        },
        "decision": {
            "alpha": alpha,
            "confidence": confidence,
            "threshold": calibrated.threshold,
            "unsure_threshold": calibrated.unsure_threshold,
            "promise": calibrated.promise.sentence,
        },
        "calibration": {"file": "calibration.npz", "n": calibrated.n},
        "map_range": list(map_range),
        "reference": [{"file": f, "score": float(engine.infer(p[None]).score[0])} for f, p in references],
        "provenance": _provenance(run, parity),
    }
    members = {"model.onnx": model, "calibration.npz": npz.getvalue(), **{f: _png(p) for f, p in references}}
    return Exported(write_bundle(out, fields, members), parity)


def _calibrate(
    engine: OrtEngine, normals: tuple[Sample, ...], alpha: float, confidence: float, tail: bool
) -> tuple[calibration.Calibration, tuple[float, float]]:
    """Thresholds from the artefact's own scores, and the range of its maps on normal frames."""
    scores, maps, frames = [], [], []
    for sample in normals:
        pixels = load(sample)
        outputs = engine.infer(pixels[None])
        scores.append(float(outputs.score[0]))
        maps.append(outputs.anomaly_map[0].ravel())
        frames.append(calibration.frame_statistics(pixels))
    fitted = calibration.fit(scores, alpha, confidence, tail=tail)
    if not np.isfinite(fitted.threshold):
        least = fitted.promise.smallest_alpha
        raise ExportError(
            f"{fitted.promise.sentence}; choose --alpha {np.ceil(least * 1000) / 1000:g} or more, --tail, or "
            "train with more normals"
        )
    if len(frames) >= _FEWEST_FRAMES:
        fitted = fitted.with_frames(frames)
    middle, top = np.quantile(np.concatenate(maps), (0.5, 0.999))
    # Colour begins above what normal frames usually show and is full at twice their range.
    return fitted, (float(middle), float(middle + 2 * (top - middle) + 1e-6))


def _provenance(run: Run, parity: Parity) -> dict[str, Any]:
    counts = {
        "train_normal": len(run.split.train_normal),
        "calibration_normal": len(run.split.calibration_normal),
        "train_anomaly": len(run.split.train_anomaly),
    }
    settings = {**run.config.to_json(), "backbone_weights": None}  # a path says nothing elsewhere; the digest does
    kept = ("versions", "backbone_digest", "supersample")
    return {"settings": settings, "counts": counts, "parity": parity.to_json(), **{k: run.record[k] for k in kept}}


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _check_writable(out: Path) -> None:
    """Before minutes of work: the folder must be there."""
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ExportError(f"{out} cannot be written: give --out a file in a folder that exists and is writable")
