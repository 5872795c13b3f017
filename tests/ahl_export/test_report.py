"""The report: whole, without any network, and honest about the figures it was given."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import elpv_dataset
import numpy as np
import pytest

from ahl_export.errors import ExportError
from ahl_export.report import ReportData, ScoredFrame, write_report
from ahl_train.images import load

IMAGES = sorted((Path(elpv_dataset.__path__[0]) / "data/images").glob("*.png"))[:40]
FIGURES = {
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


def _data(promise: str = "rejects at most 1% of normal frames") -> ReportData:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, 20), rng.normal(3, 1, 20)])
    frames = tuple(
        ScoredFrame(
            path,
            int(i >= 20),
            "good" if i < 20 else "crack",
            float(scores[i]),
            0.01,
            "reject" if scores[i] > 2.5 else "pass",
            rng.normal(size=(14, 14)).astype(np.float32),
        )
        for i, path in enumerate(IMAGES)
    )
    return ReportData(
        "AHL+ on cells", FIGURES, promise, 2.5, 1.5, (-1.0, 3.0), scores[:20], frames, {"Seed": "0"}, load
    )


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag == "img":
            self.images.append(named)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(_data(), tmp_path_factory.mktemp("report")).read_text()


def test_no_network_is_needed(page: str) -> None:
    seen = _Seen()
    seen.feed(page)
    assert all(link.startswith(("data:", "#")) for link in seen.links)
    assert "script" not in seen.tags
    assert "link" not in seen.tags
    assert not re.search(r"url\(\s*['\"]?http", page)


def test_twelve_and_the_mistakes_are_shown_with_words(page: str) -> None:
    seen = _Seen()
    seen.feed(page)
    assert len(seen.images) == 12 + 6 + 6
    assert all(image["alt"] for image in seen.images)
    assert page.count("<svg") == 2


def test_figures_are_on_the_page_and_in_the_json(tmp_path: Path) -> None:
    page = write_report(_data(), tmp_path).read_text()
    for shown in ("0.873", "5.00%", "70.0%", "33 ms", "831", "300"):
        assert shown in page
    assert json.loads((tmp_path / "report.json").read_text()) == FIGURES
    assert len(page) < 5_000_000


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    page = write_report(_data("<script>alert(1)</script>"), tmp_path).read_text()
    assert "<script>" not in page


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="no report written"):
        write_report(_data(), tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
