"""The report: whole, without any network, honest about the figures it was given; both files or neither."""

import base64
import io
import json
import math
import re
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import elpv_dataset
import numpy as np
import pytest
from PIL import Image

import calibration
from ahl_export.errors import ExportError
from ahl_export.report.calibration_plots import replay
from ahl_export.report.report import ReportData, ScoredFrame, write_report
from ahl_train.data.images import load

IMAGES = sorted((Path(elpv_dataset.__path__[0]) / "data/images").glob("*.png"))[:40]
VALUES = {
    "auroc": 0.8731,
    "false_reject_rate": 0.05,
    "detection_rate": 0.7,
    "alpha": 0.01,
    "train_seconds": 83.8,
    "export_seconds": 35.7,
    "score_ms_p50": 33.1,
    "n_train_normal": 831,
    "n_calibration": 300,
    "n_test_normal": 20,
    "n_test_anomaly": 20,
}
VOID = {"meta", "img", "br"}
# What SVG's and HTML's own names look like; nothing is fetched from there.
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def _data() -> ReportData:
    """20 normals, one of them above the threshold, and 20 anomalies of two kinds, 14 above and one unsure."""
    rng = np.random.default_rng(0)
    scores = [*np.linspace(-2, 1.4, 19), 3.25, *np.linspace(-0.5, 1, 5), 2.0, *np.linspace(2.6, 8, 14)]
    frames = tuple(
        ScoredFrame(
            path,
            int(i >= 20),
            "good" if i < 20 else ("crack", "finger")[i % 2],
            float(scores[i]),
            0.0123,
            "reject" if scores[i] > 2.5 else "unsure" if scores[i] > 1.5 else "pass",
            rng.normal(size=(14, 14)).astype(np.float32),
        )
        for i, path in enumerate(IMAGES)
    )
    return ReportData(
        title="AHL(Density) on cells",
        figures=dict(VALUES),
        promise="rejects at most 1% of normal frames",
        threshold=2.5,
        unsure_threshold=1.5,
        map_range=(-1.0, 3.0),
        calibration_scores=rng.normal(size=300),
        frames=frames,
        facts={"Seed": "7351", "Bundle": "cells.ahl, sha256 ab12"},
        load=load,
    )


class _Seen(HTMLParser):
    """The page's elements; fails on one that is closed wrongly."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(_data(), tmp_path_factory.mktemp("report")).read_text()


@pytest.fixture(scope="module")
def seen(page: str) -> _Seen:
    return _Seen(page)


def test_no_network_is_needed(page: str, seen: _Seen) -> None:
    references = [
        v for _, a in seen.elements for k, v in a.items() if k in ("src", "href", "xlink:href", "srcset") and v
    ]
    assert len(references) > 24
    assert all(r.startswith(("data:image/", "#")) for r in references)
    assert not seen.all("script", "link", "iframe", "base")
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"'\s<)]+", page)) <= NAMESPACES
    assert re.findall(r"url\(\s*['\"]?(.)", page) == ["#"] * page.count("url(")


def test_references_inside_the_page_lead_somewhere(page: str, seen: _Seen) -> None:
    ids = Counter(a["id"] for _, a in seen.elements if "id" in a)
    assert not [name for name, times in ids.items() if times > 1]
    assert set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page)) != set()
    assert {a or b for a, b in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page)} <= set(ids)


def test_twelve_and_the_mistakes_are_shown_and_told(seen: _Seen) -> None:
    told = [image["alt"] or "" for image in seen.all("img")]
    frames = _data().frames
    ranked = sorted(frames, key=lambda f: -f.score)
    normals = [f for f in ranked if not f.label]
    anomalies = [f for f in reversed(ranked) if f.label]
    expected = ranked[:12] + normals[:6] + anomalies[:6]
    assert [alt.split(",")[0] for alt in told] == [f.path.name for f in expected]
    assert all(f.decision in alt for f, alt in zip(expected, told, strict=True))
    assert "reject 3.250 p 0.012, " + normals[0].path.stem in seen.text.replace("✕ ", "")


def test_overlays_show_the_map(tmp_path: Path) -> None:
    hot = replace(_data(), map_range=(-100.0, -50.0))
    cold = replace(_data(), map_range=(50.0, 100.0))
    pictures = [_Seen(write_report(d, tmp_path).read_text()).all("img")[0]["src"] for d in (hot, cold)]
    spread = [_colourfulness(uri or "") for uri in pictures]
    assert spread[0] > 50
    assert spread[1] < 5  # cells are grey


def _colourfulness(uri: str) -> float:
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))), np.float32)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())


def test_every_figure_is_on_the_page(seen: _Seen) -> None:
    for shown in ("0.873", "5.00%", "70.0%", "target 1%", "1 min 24 s", "35.7 s", "33 ms", "831 normal", "300 normal"):
        assert shown in seen.text
    for shown in ("rejects at most 1% of normal frames", "7351", "cells.ahl, sha256 ab12", "above the target of 1%"):
        assert shown in seen.text
    assert "20 normal and 20 defective" in seen.text


def test_decisions_are_counted_by_group(seen: _Seen) -> None:
    assert "normal 20 19 (95.0%) 0 (0.0%) 1 (5.0%)" in seen.text
    assert "all defects 20 5 (25.0%) 1 (5.0%) 14 (70.0%)" in seen.text
    assert "defect: crack 10" in seen.text
    assert "Defects noticed, rejected or unsure: 15 of 20 75.0%" in seen.text


def test_the_realised_rate_has_its_interval(seen: _Seen) -> None:
    assert "between 0.13% and 24.87%" in seen.text  # Clopper-Pearson of 1 in 20, as printed tables have it


def test_both_levels_are_drawn_and_named(seen: _Seen) -> None:
    assert len(seen.all("svg")) == 2
    for label in ("unsure above 1.5", "reject above 2.5", "normal (20)", "defect (20)", "calibration (300)"):
        assert label in seen.text
    assert all(a.get("aria-label") for a in seen.all("div") if a.get("role") == "img")


def test_headings_go_down_one_step_at_a_time(seen: _Seen) -> None:
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_the_json_has_the_figures_and_the_page_is_small(tmp_path: Path) -> None:
    page = write_report(_data(), tmp_path / "new" / "folder")
    assert page == tmp_path / "new/folder/report.html"
    assert json.loads((page.parent / "report.json").read_text()) == VALUES
    assert sorted(p.name for p in page.parent.iterdir()) == ["report.html", "report.json"]
    assert page.stat().st_size < 5_000_000


def test_the_same_data_gives_the_same_page(page: str, tmp_path: Path) -> None:
    assert write_report(_data(), tmp_path).read_text() == page


def test_the_promise_and_the_alarm_are_drawn_where_there_is_a_calibration(page: str, tmp_path: Path) -> None:
    fitted = calibration.fit(np.random.default_rng(7).normal(size=300), alpha=0.05)
    stream = replay(fitted)
    shown = _Seen(write_report(replace(_data(), calibration=fitted, drift=stream), tmp_path).read_text())
    assert "Does the guarantee hold" in shown.text and "The drift alarm." in shown.text
    assert stream.change in " ".join(str(a.get("aria-label")) for a in shown.all("div"))
    assert "Does the guarantee hold" not in page


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    data = replace(_data(), title=nasty, promise=nasty, facts={nasty: nasty})
    data = replace(data, frames=tuple(replace(f, kind=nasty) for f in data.frames))
    assert "<script" not in write_report(data, tmp_path).read_text()


def test_without_levels_nothing_is_drawn(tmp_path: Path) -> None:
    data = replace(_data(), threshold=math.inf, unsure_threshold=math.inf)
    text = _Seen(write_report(data, tmp_path).read_text()).text
    assert "no unsure level, no reject level" in text
    assert "reject above" not in text


def test_equal_scores_still_make_a_page(tmp_path: Path) -> None:
    data = _data()
    same = tuple(replace(f, score=1.0, decision="pass") for f in data.frames)
    data = replace(data, frames=same, calibration_scores=np.ones(5), threshold=1.0, unsure_threshold=1.0)
    assert write_report(data, tmp_path).exists()


def test_the_licence_stands_beside_the_pictures(tmp_path: Path) -> None:
    assert "Check it before" in _Seen(write_report(_data(), tmp_path).read_text()).text
    named = replace(_data(), facts={"Data licence": "CC BY-NC-SA 4.0"})
    text = _Seen(write_report(named, tmp_path).read_text()).text
    assert "licence: CC BY-NC-SA 4.0." in text
    assert "Check it before" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": VALUES | {"speed": 1}}, r"missing \[\], unknown \['speed'\]"),
        ({"figures": {k: v for k, v in VALUES.items() if k != "auroc"}}, r"missing \['auroc'\]"),
        ({"figures": VALUES | {"auroc": math.nan}}, "auroc"),
        ({"frames": tuple(f for f in _data().frames if f.label)}, "one group only"),
    ],
)
def test_data_that_cannot_be_shown_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        replace(_data(), **change)  # type: ignore[arg-type]


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="no report written"):
        write_report(_data(), tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@contextmanager
def _no_file_above(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 100, 100_000])  # the last one lets report.json through
def test_a_disk_that_fills_up_leaves_the_old_report(tmp_path: Path, limit: int) -> None:
    (tmp_path / "report.html").write_text("old page")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ExportError, match="free space"), _no_file_above(limit):
        write_report(_data(), tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"report.html": "old page", "report.json": "{}"}
