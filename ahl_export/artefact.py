"""An artefact: built by its exporter, then proven, calibrated on its own scores, and described for the manifest."""

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

import calibration
from ahl_export.errors import ExportError
from ahl_export.verify.layer_differences import Probe, from_graph, from_model
from ahl_export.verify.parity import (
    Bounds,
    Evidence,
    Pixels,
    Scores,
    Survey,
    compare,
    departs,
    rank_correlation,
    survey,
)
from ahl_runtime.core.machine import cpu
from ahl_runtime.engines.base import CheckedEngine, cores
from calibration.beta import beta_cdf
from calibration.tail import FEWEST

_FEWEST_FRAMES = 30  # calibration.with_frames
_UNPROVEN = "not proven, as it could not run where it was exported; the float32 graph"


@dataclass(frozen=True, eq=False)
class BuiltArtefact:
    """What an exporter hands over. `files`: members by name, in the order that the engine takes them.

    `run`: the engine that runs it here; None where that cannot be. `beside`: makes one for frames side by side, a core
    each, where that is another. `tolerance`: the manifest's. `extras`: plain JSON.
    `probe`: gives tensors by the names that they have in the ONNX graph, for the error that says where it departs.
    """

    engine: str
    files: Mapping[str, bytes]
    precision: str
    bounds: Bounds
    tolerance: float
    run: CheckedEngine | None
    extras: Mapping[str, Any] = field(default_factory=dict)
    probe: Probe | None = None
    beside: Callable[[], CheckedEngine] | None = None


@dataclass(frozen=True)
class Targets:
    """What thresholds shall keep, as for calibration.fit."""

    alpha: float
    confidence: float
    tail: bool


@dataclass(frozen=True, eq=False)
class ProvenArtefact:
    """An artefact for the bundle: the manifest's fields, its members, and what it was found with."""

    fields: dict[str, Any]
    members: dict[str, bytes]
    survey: Survey
    threshold: float

    @property
    def line(self) -> str:
        """What was found, for the one who waits."""
        p = self.fields["parity"]
        if p is None:
            return f"{self.fields['engine']}: cannot run here: not proven, with the thresholds of the float32 graph"
        return (
            f"{self.fields['engine']}: {p['frames']} frames, scores within {p['score_max']:.1e}, maps within "
            f"{p['map_max']:.1e}; {p['flips']} of {p['compared']} decisions differ, rank correlation "
            f"{p['rank_correlation']:.4f}; {p['ms_p50']:.1f} ms, {p['size'] / 1e6:.1f} MB"
        )


def finish(
    built: BuiltArtefact,
    evidence: Evidence,
    targets: Targets,
    references: Mapping[str, Pixels],
    graph: ir.Model,
    first: ProvenArtefact | None,
) -> ProvenArtefact:
    """Prove an artefact and calibrate it on its own scores.

    `graph`: to_onnx's; `first`: that graph, finished, None while it is the one to finish.
    One that cannot run here takes the first's thresholds and is marked as not proven. ExportError if it departs from
    the model or from the first by more than its bounds, or if there are too few normals for its thresholds.
    """
    if built.run is None:
        if first is None:
            raise ExportError(f"{built.engine} cannot run here, and nothing else proves the graph")
        kept = ("decision", "calibration", "map_range", "reference")
        fields = _fields(built) | {name: first.fields[name] for name in kept} | {"parity": None}
        promise = f"{_UNPROVEN}: {first.fields['decision']['promise']}"
        fields["decision"] = {**first.fields["decision"], "promise": promise}
        return ProvenArtefact(fields, dict(built.files), first.survey, first.threshold)
    close = compare(built.run, evidence.gate, evidence.wanted, built.bounds.unit)
    problem = departs(close, built.bounds)
    if problem:
        raise ExportError(f"{built.engine} disagrees with the model: {problem}{_where(built, evidence, graph, first)}")
    seen = survey(built.run, evidence, built.beside() if built.beside else None)
    fitted = _fit(seen, evidence, targets)
    scores, wanted = _compared(built.run, seen, evidence, first)
    level = (first or fitted).threshold
    differ = (scores > fitted.threshold) != (wanted > level)
    if first is None:  # the threshold is one of these frames' scores: within rounding of it, either decision is right
        differ &= np.abs(wanted - level) > built.bounds.score * max(1.0, abs(level))
    flips = int(differ.sum())
    rank = rank_correlation(scores, wanted)
    if _too_many(flips, len(scores), built.bounds.flips) or not rank >= built.bounds.rank:
        raise ExportError(
            f"{built.engine} departs from the {'float32 graph' if first else 'model'}: {flips} of {len(scores)} "
            f"decisions differ "
            f"({built.bounds.flips:.1%} allowed), rank correlation {rank:.4f} ({built.bounds.rank:g} asked)"
            f"{_where(built, evidence, graph, first)}"
        )
    npz = io.BytesIO()
    fitted.save(npz)
    stored = f"calibration/{built.engine}.npz"
    fields = _fields(built) | {
        "decision": {
            "alpha": targets.alpha,
            "confidence": targets.confidence,
            "threshold": fitted.threshold,
            "unsure_threshold": fitted.unsure_threshold,
            "promise": fitted.promise.sentence,
        },
        "calibration": {"file": stored, "n": fitted.n},
        "map_range": list(seen.map_range),
        "reference": [
            {"file": name, "score": float(built.run.infer(pixels[None]).score[0])}
            for name, pixels in references.items()
        ],
        "parity": {
            **asdict(close),
            "compared": len(scores),
            "rank_correlation": min(1.0, rank),
            "flips": flips,
            "ms_p50": float(np.median(seen.milliseconds)),
            "ms_p99": float(np.quantile(seen.milliseconds, 0.99)),
            "threads": cores(None),
            "cpu": cpu(),
            "size": sum(map(len, built.files.values())),
        },
    }
    return ProvenArtefact(fields, {**built.files, stored: npz.getvalue()}, seen, fitted.threshold)


def _too_many(flips: int, n: int, share: float) -> bool:
    """More than chance allows where so large a share differs, at 95%: of few frames, one that differs says little."""
    return flips > 0 and beta_cdf(share, flips, n - flips + 1) < 0.05  # P(Bin(n, share) >= flips)


def _where(built: BuiltArtefact, evidence: Evidence, graph: ir.Model, first: ProvenArtefact | None) -> str:
    """Which layer departs, on the first of the gate's frames; empty where the engine does not show its layers."""
    if built.probe is None:
        return ""
    frame = evidence.gate[0]
    if first is None:
        return "; " + from_model(evidence.run.model, graph, built.probe, frame)
    return "; " + from_graph(graph, built.probe, frame)


def _fields(built: BuiltArtefact) -> dict[str, Any]:
    return {
        "engine": built.engine,
        "files": list(built.files),
        "precision": built.precision,
        "tolerance": built.tolerance,
        "extras": {**built.extras, "bounds": asdict(built.bounds)},
    }


def _compared(
    engine: CheckedEngine, seen: Survey, evidence: Evidence, first: ProvenArtefact | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose decisions and ranks are compared, and those that were wanted, float [n] each.

    Against the float32 graph: calibration normals and pseudo anomalies. The graph itself, against torch: the gate's.
    """
    if first is None:
        scores = [engine.infer(frame[None]).score for frame in evidence.gate]
        return np.concatenate(scores), np.concatenate([w.score for w in evidence.wanted])
    return np.concatenate([seen.normal, seen.pseudo]), np.concatenate([first.survey.normal, first.survey.pseudo])


def _fit(seen: Survey, evidence: Evidence, targets: Targets) -> calibration.Calibration:
    """Thresholds from the artefact's own scores of normals held out, or from out-of-fold scores carried over to it."""
    rates = (targets.alpha, targets.confidence)
    if folds := evidence.run.folds:
        fitted = calibration.fit_cross(_carried(seen, evidence), *rates, tail=targets.tail)
    else:
        fitted = calibration.fit(seen.normal, *rates, tail=targets.tail)
    if not np.isfinite(fitted.threshold):
        least = fitted.promise.smallest_alpha
        tail = "--tail, " if fitted.n >= 2 * FEWEST else ""
        raise ExportError(
            f"{fitted.promise.sentence}; choose --alpha {np.ceil(least * 1000) / 1000:g} or more, {tail}or train "
            f"with more normals{'' if folds else ' or --calibrate cross'}"
        )
    if len(evidence.statistics) >= _FEWEST_FRAMES:
        fitted = fitted.with_frames(evidence.statistics)
    return fitted


def _carried(seen: Survey, evidence: Evidence) -> list[Scores]:
    """Out-of-fold scores as the artefact would give them, one array a fold.

    They come from fold models in torch, and the artefact is made of the final model. What the artefact changes is
    known of each normal: its own score less the final model's in torch. The backbone, where rounding happens, is the
    same in all of them, so that much is added to the normal's out-of-fold score.
    """
    change = seen.normal - evidence.model_scores
    return [np.array(f.scores) + change[list(f.normals)] for f in evidence.run.folds]
