"""Calibrations, drift and bundles changed over HTTP: shown first, then done, and undone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from ahl_runtime.core.decode import decode


def ask(url: str, path: str, body: Any = None, status: int = 200) -> Any:
    answered = (
        requests.post(url + path, json=body, timeout=20) if body is not None else requests.get(url + path, timeout=20)
    )
    assert answered.status_code == status, answered.text
    return answered.json()


@pytest.fixture
def seen(line: Any, cells: list[Path]) -> None:
    """The line has decided on 40 frames, each a little darker than those of its calibration."""
    for cell in cells:
        line.submit(decode(cell) // 4 * 3, "default", cell.name)


@pytest.mark.usefixtures("seen")
def test_a_calibration_is_shown_put_in_force_and_undone(url: str, line: Any) -> None:
    before = ask(url, "/v1/calibration")
    assert before["name"] == "bundle"
    shown = ask(url, "/v1/calibration/preview", {"frames": 40})
    assert shown["frames"] == shown["new"]["normals"] == 40 and shown["left_out"] == 0
    assert shown["old"]["threshold"] == before["threshold"] < shown["new"]["threshold"]
    assert shown["old"]["rejected"] > shown["new"]["rejected"]
    assert ask(url, "/v1/calibration") == before  # nothing was written yet
    done = ask(url, "/v1/calibration/apply", {"preview": shown["preview"], "who": "Ada", "why": "new lamp"})
    assert done["name"] == "default.onnxruntime.0001"
    now = ask(url, "/v1/calibration")
    assert (now["name"], now["threshold"]) == (done["name"], shown["new"]["threshold"])
    audit = json.loads((line.path.parent / "cells.ahl.calibrations/audit.jsonl").read_text())
    assert (audit["who"], audit["why"]) == ("Ada", "new lamp")
    assert ask(url, "/v1/calibration/undo", {}) == {"undone": done["name"]}
    assert ask(url, "/v1/calibration") == before
    assert "to roll back" in ask(url, "/v1/calibration/undo", {}, 409)["error"]


@pytest.mark.usefixtures("seen")
def test_only_what_was_shown_is_put_in_force_and_once(url: str) -> None:
    shown = ask(url, "/v1/calibration/preview", {"frames": 40})["preview"]
    for body in ({"preview": "other"}, {"preview": shown, "source": "left"}, {"preview": shown}):
        assert "preview again" in ask(url, "/v1/calibration/apply", body, 409)["error"]
    assert ask(url, "/v1/calibration")["name"] == "bundle"


@pytest.mark.usefixtures("seen")
def test_too_few_frames_for_the_promise(url: str) -> None:
    assert "give more normal frames" in ask(url, "/v1/calibration/preview", {"frames": 5}, 409)["error"]
    for body in ({"frames": 1}, {"alpha": 0}, {"alpha": 2}, {"source": "a/b"}, {"more": 1}):
        ask(url, "/v1/calibration/preview", body, 400)


@pytest.mark.usefixtures("seen")
def test_drift_is_watched_anew(url: str, line: Any, cells: list[Path]) -> None:
    for cell in cells * 4:
        line.submit(decode(cell) // 2, "default", cell.name)
    assert ask(url, "/v1/state")["sources"][0]["drift"]["state"] == "alarm"
    assert ask(url, "/v1/drift/reset", {"source": "default"}) == {"source": "default"}
    assert line.state().sources[0].drift.state == "calm"


def test_a_bundle_is_deployed_by_name(url: str, line: Any, make_bundle: Callable[..., Path], cells: list[Path]) -> None:
    old = ask(url, "/v1/model")
    new = make_bundle("newer.ahl", fields={"provenance": {"seed": 1}})
    new.rename(line.path.with_name("newer.ahl"))
    assert ask(url, "/v1/deploy", {"bundle": "newer.ahl"})["name"] == "newer"
    assert ask(url, "/v1/model")["digest"] != old["digest"]
    assert ask(url, "/v2/models/newer")["name"] == "newer"


@pytest.mark.parametrize("name", ["../x.ahl", "/etc/passwd", "x", "a/b.ahl", ".ahl", "x.ahl\n", ""])
def test_no_path_is_deployed(name: str, url: str) -> None:
    ask(url, "/v1/deploy", {"bundle": name}, 400)


def test_an_unsound_bundle_is_not_deployed(url: str, line: Any) -> None:
    old = ask(url, "/v1/model")
    assert "cannot be read" in ask(url, "/v1/deploy", {"bundle": "none.ahl"}, 409)["error"]
    damaged = bytearray(line.path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    line.path.with_name("damaged.ahl").write_bytes(damaged)
    assert "refused" in ask(url, "/v1/deploy", {"bundle": "damaged.ahl"}, 409)["error"]
    assert ask(url, "/v1/model") == old
