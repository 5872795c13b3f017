"""The output of `ahl inspect`: a bundle's artefacts in one table."""

import math
from typing import Any

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.bundle.manifest import Artefact

_UNPROVEN = "not measured"


def as_json(bundle: Bundle) -> dict[str, Any]:
    """The whole manifest, and the bundle's digest; thresholds that reject nothing are null."""
    path = {"path": str(bundle.path), "digest": bundle.digest, "signed": bundle.signed}
    return {**path, **bundle.manifest.model_dump(mode="json")}


def as_text(bundle: Bundle) -> str:
    """The bundle, a table with one column per artefact, and the description and guarantee of each artefact."""
    manifest = bundle.manifest
    settings = manifest.provenance.get("settings", {})
    named = [f"{key} {settings[key]}" for key in ("system", "backbone", "data", "shots", "seed") if key in settings]
    size = sum(member.size for member in manifest.members.values())
    signed = "signed (verify with ahl-runtime --trust)" if bundle.signed else "not signed"
    lines = [
        f"{bundle.path}: {manifest.name}, written {manifest.created:%Y-%m-%d %H:%M} UTC, {size / 1e6:.1f} MB, {signed}",
        f"sha256 {bundle.digest}",
        f"heads {', '.join(manifest.graph.heads)}; ONNX opset {manifest.graph.opset}",
        ", ".join(named),
        "",
        *_table([_column(a, sum(manifest.members[f].size for f in a.files)) for a in manifest.artefacts]),
    ]
    for artefact in manifest.artefacts:
        lines += ["", f"{artefact.engine}: {artefact.precision}", f"  {artefact.decision.promise}"]
        kept = artefact.extras.get("float32_parts")
        lines += [f"  kept in float32 by the search: {', '.join(kept) or 'nothing'}"] if kept is not None else []
    parity = manifest.first.parity
    if parity is not None:
        lines += ["", f"milliseconds on {parity.threads} threads of {parity.cpu}, where the bundle was exported"]
    return "\n".join(line for line in lines)


def _column(artefact: Artefact, size: int) -> dict[str, str]:
    """The rows of one artefact. Its figures are marked as not measured if it could not run where it was exported."""
    p, decision = artefact.parity, artefact.decision
    return {
        "": artefact.engine,
        "score, largest difference": f"{p.score_max:.1e}" if p else _UNPROVEN,
        "score, mean difference": f"{p.score_mean:.1e}" if p else _UNPROVEN,
        "map, largest difference": f"{p.map_max:.1e}" if p else _UNPROVEN,
        "map, mean difference": f"{p.map_mean:.1e}" if p else _UNPROVEN,
        "rank correlation": f"{p.rank_correlation:.4f}" if p else _UNPROVEN,
        "decisions that differ": f"{p.flips} of {p.compared}" if p else _UNPROVEN,
        "ms a frame, p50": f"{p.ms_p50:.1f}" if p else _UNPROVEN,
        "ms a frame, p99": f"{p.ms_p99:.1f}" if p else _UNPROVEN,
        "MB": f"{size / 1e6:.1f}",
        "reject above": _level(decision.threshold),
        "unsure above": _level(decision.unsure_threshold),
        "alpha": f"{decision.alpha:g}",
        "calibration normals": str(artefact.calibration.n),
    }


def _level(threshold: float) -> str:
    return f"{threshold:.5g}" if math.isfinite(threshold) else "never"


def _table(columns: list[dict[str, str]]) -> list[str]:
    """Rows of text: labels to the left, a column for each artefact, a rule below the first row."""
    labels = list(columns[0])
    first = max(map(len, labels))
    widths = [max(map(len, column.values())) for column in columns]
    cells = ((label, zip(columns, widths, strict=True)) for label in labels)
    rows = [f"{label:<{first}}" + "".join(f"  {c[label]:>{w}}" for c, w in row) for label, row in cells]
    return [rows[0], "-" * len(rows[0]), *rows[1:]]
