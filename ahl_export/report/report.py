"""The demo's report: one HTML file that needs no network, and the same figures as JSON."""

import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from ahl_export.errors import ExportError
from ahl_export.report.calibration_plots import DriftStream, martingale, reliability
from ahl_export.report.plots import histogram, roc, svg
from ahl_runtime.core.files import write_whole
from ahl_runtime.score.overlay import COLOURS, LUT, overlay
from calibration import Calibration
from calibration.beta import beta_quantile

FIGURES = (
    "auroc",
    "false_reject_rate",
    "detection_rate",
    "alpha",
    "train_seconds",
    "export_seconds",
    "score_ms_p50",
    "n_train_normal",
    "n_calibration",
    "n_test_normal",
    "n_test_anomaly",
)
_MOST_ANOMALOUS, _MISTAKES = 12, 6
_THUMBNAIL = 300  # px: sharp at the page's 170 on a dense screen


@dataclass(frozen=True, eq=False)
class ScoredFrame:
    """A test frame as the device sees it. `anomaly_map`: float32 [h, w]; `decision`: pass, unsure or reject."""

    path: Path
    label: int
    kind: str
    score: float
    p_value: float
    decision: str
    anomaly_map: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ReportData:
    """All data of the page. `figures`: exactly the keys of FIGURES; `facts`: how the run was made, in order.

    `threshold` and `unsure_threshold` are +inf if the calibration has too few normals. A fact named "Data licence" is
    repeated at the pictures. `load` returns a frame's pixels, uint8 [H, W, 3].
    Raises ExportError for other keys, a figure that is not finite, and frames of one group only.
    """

    title: str
    figures: dict[str, float | int]
    promise: str
    threshold: float
    unsure_threshold: float
    map_range: tuple[float, float]
    calibration_scores: NDArray[np.float64]
    frames: tuple[ScoredFrame, ...]
    facts: dict[str, str]
    load: Callable[[Path], NDArray[np.uint8]]
    calibration: Calibration | None = None  # for the plot of the promise
    drift: DriftStream | None = None  # for the plot of the alarm

    def __post_init__(self) -> None:
        missing, unknown = set(FIGURES) - set(self.figures), set(self.figures) - set(FIGURES)
        if missing or unknown:
            raise ExportError(f"report figures: missing {sorted(missing)}, unknown {sorted(unknown)}")
        endless = [name for name, value in self.figures.items() if not math.isfinite(value)]
        if endless:
            raise ExportError(f"report figures: expected finite numbers, got {', '.join(endless)} that are not")
        if {bool(f.label) for f in self.frames} != {False, True}:
            raise ExportError("report frames: expected normals and anomalies, got one group only: test on both")


@dataclass(frozen=True)
class _Tile:
    frame: ScoredFrame
    picture: str  # a data URI


@dataclass(frozen=True)
class _Row:
    """The decisions on one group of test frames."""

    name: str
    frames: int
    counts: dict[str, int]  # by decision


def write_report(data: ReportData, folder: Path) -> Path:
    """Write report.html and report.json into `folder`, both or neither; returns the page's path. ExportError."""
    figures = {name: data.figures[name] for name in FIGURES}
    files = {"report.html": _page(data), "report.json": json.dumps(figures, indent=1) + "\n"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".report-") as aside:
            for name, text in files.items():
                write_whole(Path(aside) / name, [text.encode()])
            for name in files:
                (Path(aside) / name).replace(folder / name)
    except OSError as error:
        why = error.strerror or error
        raise ExportError(f"{folder}: no report written ({why}): check the folder and its free space") from error
    return folder / "report.html"


def _page(data: ReportData) -> str:
    normals = sorted((f for f in data.frames if not f.label), key=lambda f: -f.score)
    anomalies = sorted((f for f in data.frames if f.label), key=lambda f: f.score)
    ranked = sorted(data.frames, key=lambda f: -f.score)
    labels, scores = [f.label for f in data.frames], [f.score for f in data.frames]
    good, bad = _row("normal", normals), _row("all defects", anomalies)
    levels = (data.unsure_threshold, data.threshold)
    environment = Environment(
        loader=PackageLoader("ahl_export.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": _percent, "level": _level, "duration": _duration}
    return environment.get_template("report.html.j2").render(
        data=data,
        figures=data.figures,
        good=good,
        bad=bad,
        rows=[good, *_kinds(anomalies), bad],
        interval=_interval(good.counts["reject"], good.frames),
        roc=roc(labels, scores, levels),
        histogram=histogram([f.score for f in normals], [f.score for f in anomalies], data.calibration_scores, levels),
        reliability=_reliability(data, normals),
        martingale=svg(martingale(data.drift), "martingale") if data.drift else None,
        most=_tiles(data, ranked[:_MOST_ANOMALOUS]),
        false_alarms=_tiles(data, normals[:_MISTAKES]),
        missed=_tiles(data, anomalies[:_MISTAKES]),
        colours=COLOURS,
        heat=[tuple(int(c) for c in LUT[i]) for i in range(102, 256, 17)],  # overlays show colour from 102
        infinity=math.inf,
        licence=data.facts.get("Data licence"),
    )


def _reliability(data: ReportData, normals: Sequence[ScoredFrame]) -> str | None:
    if data.calibration is None:
        return None
    return svg(reliability(data.calibration, np.array([f.score for f in normals])), "reliability")


def _row(name: str, frames: Sequence[ScoredFrame]) -> _Row:
    return _Row(name, len(frames), {verdict: sum(f.decision == verdict for f in frames) for verdict in COLOURS})


def _kinds(anomalies: Sequence[ScoredFrame]) -> list[_Row]:
    """A row for each kind of defect, if there are several."""
    kinds = sorted({f.kind for f in anomalies})
    rows = [_row(f"defect: {kind}", [f for f in anomalies if f.kind == kind]) for kind in kinds]
    return rows if len(rows) > 1 else []


def _interval(k: int, n: int) -> tuple[float, float]:
    """The 95% Clopper-Pearson interval of a rate that was `k` of `n`."""
    return (
        beta_quantile(0.025, k, n - k + 1) if k else 0.0,
        beta_quantile(0.975, k + 1, n - k) if k < n else 1.0,
    )


def _tiles(data: ReportData, frames: Sequence[ScoredFrame]) -> list[_Tile]:
    return [_Tile(f, _picture(data, f)) for f in frames]


def _picture(data: ReportData, frame: ScoredFrame) -> str:
    """The frame with its map laid over it, small, as a data URI."""
    image = Image.fromarray(overlay(data.load(frame.path), frame.anomaly_map, data.map_range))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _percent(rate: float, digits: int = 1) -> str:
    return f"{100 * rate:.{digits}f}%"


def _level(score: float) -> str:
    """A score or a level in four figures, zeros kept so that they align, with a true minus sign."""
    return f"{score:#.4g}".rstrip(".").replace("-", "\u2212")


def _duration(seconds: float) -> str:
    """83.8 is "1 min 24 s"; below a minute, seconds to one place."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
