"""The demo's report: one HTML file without any network, and the same figures as JSON."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from ahl_export.errors import ExportError
from ahl_export.plots import histogram, roc
from ahl_runtime.files import write_whole
from ahl_runtime.overlay import overlay

_MOST_ANOMALOUS, _MISTAKES = 12, 6
_THUMBNAIL = 220  # px


@dataclass(frozen=True)
class ScoredFrame:
    """A test frame as the device sees it. `anomaly_map`: float32 [h, w]; `decision`: pass, unsure or reject."""

    path: Path
    label: int
    kind: str
    score: float
    p_value: float
    decision: str
    anomaly_map: NDArray[np.float32]


@dataclass(frozen=True)
class ReportData:
    """All that the page shows. `figures` become report.json as they are; `facts` say how it was made, in order."""

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


@dataclass(frozen=True)
class _Tile:
    frame: ScoredFrame
    picture: str  # a data URI


def write_report(data: ReportData, folder: Path) -> Path:
    """Write report.html and report.json into `folder`; returns the page's path. ExportError."""
    environment = Environment(loader=PackageLoader("ahl_export"), autoescape=True, undefined=StrictUndefined)
    normals = sorted((f for f in data.frames if not f.label), key=lambda f: -f.score)
    anomalies = sorted((f for f in data.frames if f.label), key=lambda f: f.score)
    ranked = sorted(data.frames, key=lambda f: -f.score)
    page = environment.get_template("report.html.j2").render(
        data=data,
        figures=data.figures,
        rejected=sum(f.decision == "reject" for f in normals),
        unsure=sum(f.decision == "unsure" for f in normals),
        noticed=sum(f.decision != "pass" for f in anomalies),
        roc=roc([f.label for f in data.frames], [f.score for f in data.frames]),
        histogram=histogram(
            [f.score for f in normals], [f.score for f in anomalies], data.threshold, data.unsure_threshold
        ),
        most=_tiles(data, ranked[:_MOST_ANOMALOUS]),
        false_alarms=_tiles(data, normals[:_MISTAKES]),
        missed=_tiles(data, anomalies[:_MISTAKES]),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "report.json", [json.dumps(data.figures, indent=1).encode()])
        write_whole(folder / "report.html", [page.encode()])
    except OSError as error:
        why = error.strerror or error
        raise ExportError(f"{folder}: no report written ({why}): check the folder and its free space") from error
    return folder / "report.html"


def _tiles(data: ReportData, frames: Sequence[ScoredFrame]) -> list[_Tile]:
    return [_Tile(f, _picture(data, f)) for f in frames]


def _picture(data: ReportData, frame: ScoredFrame) -> str:
    """The frame with its map laid over it, small, as a data URI."""
    image = Image.fromarray(overlay(data.load(frame.path), frame.anomaly_map, data.map_range))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
