"""An artefact: built by its exporter, proven, calibrated on its own scores, and described in the manifest."""

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

_FEWEST_FRAMES = 30  # for calibration.with_frames
_UNPROVEN = "not proven, as it could not run where it was exported; the float32 graph"


@dataclass(frozen=True, eq=False)
class BuiltArtefact:
    """The output of an exporter. `files`: members by name, in the order in which the engine takes them.

    `run`: the engine that runs the artefact here; None if that is impossible. `parallel`: makes an engine for frames in
    parallel, one core each, if that differs from `run`. `tolerance`: of the manifest. `extras`: plain JSON.
    `probe`: returns tensors by their names in the ONNX graph, for the error that says where the artefact departs.
    """

    engine: str
    files: Mapping[str, bytes]
    precision: str
    bounds: Bounds
    tolerance: float
    run: CheckedEngine | None
    extras: Mapping[str, Any] = field(default_factory=dict)
    probe: Probe | None = None
    parallel: Callable[[], CheckedEngine] | None = None


@dataclass(frozen=True)
class Targets:
    """The guarantee that thresholds must keep, as for calibration.fit."""

    alpha: float
    confidence: float
    tail: bool


@dataclass(frozen=True, eq=False)
class ProvenArtefact:
    """An artefact for the bundle: the manifest's fields, its members, and its measurements."""

    fields: dict[str, Any]
    members: dict[str, bytes]
    survey: Survey
    threshold: float

    @property
    def line(self) -> str:
        """The measurements in one line, for the user."""
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

    `graph`: to_onnx's. `first`: that graph, finished; None if it is the artefact to finish.
    An artefact that cannot run here takes the first's thresholds and is marked as not proven. ExportError if it departs
    from the model or from the first by more than its bounds, or if there are too few normals for its thresholds.
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
    seen = survey(built.run, evidence, built.parallel() if built.parallel else None)
    fitted = _fit(seen, evidence, targets)
    scores, wanted = _compared(built.run, seen, evidence, first)
    level = (first or fitted).threshold
    differ = (scores > fitted.threshold) != (wanted > level)
    if first is None:  # the threshold is one of these scores: within rounding of it, both decisions are right
        differ &= np.abs(wanted - level) > built.bounds.score * max(1.0, abs(level))
    flips = int(differ.sum())
    rank = rank_correlation(scores, wanted)
    if _too_many(flips, len(scores), built.bounds.flips) or not rank >= built.bounds.rank:
        raise ExportError(
            f"{built.engine} departs from the {'float32 graph' if first else 'model'}: {flips} of {len(scores)} "
            f"decisions differ "
            f"({built.bounds.flips:.1%} allowed), rank correlation {rank:.4f} ({built.bounds.rank:g} required)"
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
    """Whether there are more flips than chance allows at 95% if `share` differ: in few frames, one means little."""
    return flips > 0 and beta_cdf(share, flips, n - flips + 1) < 0.05  # P(Bin(n, share) >= flips)


def _where(built: BuiltArtefact, evidence: Evidence, graph: ir.Model, first: ProvenArtefact | None) -> str:
    """The layer that departs, on the gate's first frame; empty if the engine does not show its layers."""
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
    """Scores whose decisions and ranks are compared, and the expected scores, float [n] each.

    Against the float32 graph: of calibration normals and pseudo anomalies. That graph against torch: of the gate.
    """
    if first is None:
        scores = [engine.infer(frame[None]).score for frame in evidence.gate]
        return np.concatenate(scores), np.concatenate([w.score for w in evidence.wanted])
    return np.concatenate([seen.normal, seen.pseudo]), np.concatenate([first.survey.normal, first.survey.pseudo])


def _fit(seen: Survey, evidence: Evidence, targets: Targets) -> calibration.Calibration:
    """Thresholds from the artefact's own scores of held-out normals, or from out-of-fold scores carried over to it."""
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
    """Out-of-fold scores as the artefact would give them, one array per fold.

    Fold models in torch gave these scores, but the artefact is made of the final model. For each normal the artefact's
    change is known: its own score minus the final model's score in torch. All models share the backbone, where rounding
    happens, so this change is added to the normal's out-of-fold score.
    """
    change = seen.normal - evidence.model_scores
    return [np.array(f.scores) + change[list(f.normals)] for f in evidence.run.folds]
