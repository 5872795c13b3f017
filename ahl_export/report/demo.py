"""The demo: every step on real images, and a report of the results."""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn.metrics import roc_auc_score

import calibration
from ahl_export.options import ExportOptions
from ahl_export.pipeline import export
from ahl_export.report.calibration_plots import DriftStream
from ahl_export.report.report import ReportData, ScoredFrame, write_report
from ahl_runtime.core.types import Frame
from ahl_runtime.score.scoring import Scorer
from ahl_train.config import TrainConfig
from ahl_train.data.images import Sample, load
from ahl_train.rng import Stream, generator
from ahl_train.run import Run
from ahl_train.systems import system
from ahl_train.training import train

_RUN, _BUNDLE = "run", "elpv.ahl"
_DARKENED = 150  # frames, enough to raise the alarm


def demo(
    out: Path,
    *,
    data: str = "elpv",
    shots: int = 10,
    seed: int = 0,
    alpha: float = 0.01,
    cache: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train, export, score the test images with the bundle, write the report. Returns the report's path.

    An interrupted run in ``out`` continues; a finished one is made again. Raises the errors of these steps.
    """
    config = TrainConfig(data=data, shots=shots, seed=seed)
    if (out / _RUN / "model.pt").exists():
        shutil.rmtree(out / _RUN)
    started = perf_counter()
    report(f"training {system(config.system).title} on {data}, {shots} anomalies, seed {seed}")
    run = train(config, out / _RUN, resume=True, cache=cache, report=report)
    trained = perf_counter()
    report("exporting")
    bundle = export(out / _RUN, out / _BUNDLE, ExportOptions(alpha=alpha), report)
    exported = perf_counter()
    report(f"scoring {len(run.split.test)} test images")
    scorer = Scorer(bundle)
    frames, milliseconds = _score(scorer, run.split.test)
    figures = _figures(frames) | {
        "alpha": alpha,
        "train_seconds": round(trained - started, 1),
        "export_seconds": round(exported - trained, 1),
        "score_ms_p50": round(float(np.median(milliseconds)), 2),
        "n_train_normal": len(run.split.train_normal),
        "n_calibration": len(run.calibration_normals),
    }
    first = bundle.manifest.first
    rule, fitted = first.decision, bundle.calibration(first)
    page = ReportData(
        title=f"{system(config.system).title} on {data.upper()}",
        figures=figures,
        promise=rule.promise,
        threshold=rule.threshold,
        unsure_threshold=rule.unsure_threshold,
        map_range=first.map_range,
        calibration_scores=fitted.scores,
        frames=frames,
        facts=_facts(run, bundle.digest),
        load=load,
        calibration=fitted,
        drift=_drift(scorer, fitted, frames, seed),
    )
    return write_report(page, out)


def _score(scorer: Scorer, samples: tuple[Sample, ...]) -> tuple[tuple[ScoredFrame, ...], list[float]]:
    """Each sample as the device would see it, and the milliseconds from decoded pixels to decision."""
    frames, milliseconds = [], []
    for sample in samples:
        pixels = load(sample)
        started = perf_counter()
        d = scorer.decide(Frame(pixels))
        milliseconds.append(1e3 * (perf_counter() - started))
        frames.append(ScoredFrame(sample.path, sample.label, sample.kind, d.score, d.p_value, d.verdict, d.anomaly_map))
    return tuple(frames), milliseconds


def _drift(
    scorer: Scorer, fitted: calibration.Calibration, frames: tuple[ScoredFrame, ...], seed: int
) -> DriftStream | None:
    """The alarm on the normal test images in random order, then on them darkened; None without frame statistics."""
    if fitted.frames is None:
        return None
    normals = [f for f in frames if not f.label]
    order = generator(seed, Stream.DEMO_ORDER).permutation(len(normals))
    alarm, reports = calibration.Drift(fitted), []
    for i in order:
        reports.append(alarm.observe(normals[i].score, calibration.frame_statistics(load(normals[i].path))))
    for i in order[:_DARKENED]:
        dark = (load(normals[i].path) * 0.8).astype(np.uint8)
        reports.append(alarm.observe(scorer.decide(Frame(dark)).score, calibration.frame_statistics(dark)))
    return DriftStream(tuple(reports), len(order), "light at 80%")


def _figures(frames: tuple[ScoredFrame, ...]) -> dict[str, float | int]:
    labels = np.array([f.label for f in frames])
    rejected = np.array([f.decision == "reject" for f in frames])
    return {
        "auroc": float(roc_auc_score(labels, [f.score for f in frames])),
        "false_reject_rate": float(rejected[labels == 0].mean()),
        "detection_rate": float(rejected[labels == 1].mean()),
        "n_test_normal": int((labels == 0).sum()),
        "n_test_anomaly": int((labels == 1).sum()),
    }


def _facts(run: Run, digest: str) -> dict[str, str]:
    c = run.config
    versions = run.record["versions"]
    return {
        "System": f"{system(c.system).title} ({c.system}), schedule {c.schedule}",
        "Backbone": f"{c.backbone}, frozen, 448 and 224 px",
        "Data": f"{c.data}: {len(run.split.train_normal)} normals and {c.shots} anomalies to train, "
        f"{'the same' if run.folds else len(run.calibration_normals)} normals to calibrate, seed {c.seed}",
        "Bundle": f"{_BUNDLE}, sha256 {digest}",
        "Versions": ", ".join(f"{k} {v}" for k, v in versions.items()) + f", onnxruntime {version('onnxruntime')}",
        "Command": f"ahl demo --data {c.data} --shots {c.shots} --seed {c.seed}",
    }
