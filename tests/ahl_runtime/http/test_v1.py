"""Scoring over HTTP, decisions read back, marks, state and metrics: on a real server around real parts."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.http.settings import Settings
from ahl_runtime.http.status.temperature import temperatures
from ahl_runtime.line.monitor.state import State
from ahl_runtime.line.store.store import Store
from ahl_runtime.score.scoring import Scorer

PNG = {"content-type": "image/png"}


def post(url: str, path: str, **options: Any) -> requests.Response:
    return requests.post(url + path, timeout=10, **options)


def score(url: str, cell: Path, **query: str) -> dict[str, Any]:
    answered = post(url, "/v1/score", data=cell.read_bytes(), headers=PNG, params=query)
    assert answered.status_code == 200, answered.text
    return answered.json()


def get(url: str, path: str, status: int = 200, **query: Any) -> Any:
    answered = requests.get(url + path, params=query, timeout=10)
    assert answered.status_code == status, answered.text
    return answered.json() if "json" in answered.headers["content-type"] else answered.content


def test_an_image_is_decided_on_and_stored(url: str, bundle_path: Path, cells: list[Path]) -> None:
    expected = Scorer(open_bundle(bundle_path), threads=1).score(decode(cells[0]))
    found = score(url, cells[0], source="left", frame="part 7")
    assert found["score"] == expected.score and found["verdict"] == expected.verdict
    assert (found["source"], found["frame"], found["bundle"]) == ("left", "part 7", expected.bundle)
    stored = get(url, f"/v1/decisions/{found['id']}")
    assert {k: stored[k] for k in found} == found and stored["label"] is None
    as_form = post(url, "/v1/score", files={"image": cells[0].open("rb")}).json()
    assert as_form["score"] == found["score"] and as_form["id"] != found["id"]


def test_decisions_come_a_page_at_a_time(url: str, cells: list[Path]) -> None:
    ids = [score(url, cell, source=("left", "right")[i % 2])["id"] for i, cell in enumerate(cells[:7])]
    first = get(url, "/v1/decisions", limit=5)
    rest = get(url, "/v1/decisions", limit=5, before=first["next"])
    assert [d["id"] for d in first["decisions"] + rest["decisions"]] == ids[::-1]
    assert rest["next"] is None and get(url, "/v1/decisions", limit=7)["next"] is None
    assert [d["id"] for d in get(url, "/v1/decisions", source="right")["decisions"]] == ids[5::-2]
    for verdict in ("pass", "unsure", "reject"):
        assert {d["verdict"] for d in get(url, "/v1/decisions", verdict=verdict)["decisions"]} <= {verdict}
    assert "to go on from" in get(url, "/v1/decisions", 409, before="abc")["error"]


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": "x"}, {"limit": 501}, {"verdict": "bad"}, {"source": "../x"}, {"colour": "red"}]
)
def test_a_wrong_query_is_refused(query: dict[str, Any], url: str) -> None:
    assert next(iter(query)) in get(url, "/v1/decisions", 400, **query)["error"]
    assert requests.get(f"{url}/v1/decisions?limit=1&limit=2", timeout=5).status_code == 400


def test_a_decision_is_marked_and_its_image_kept(url: str, cells: list[Path], line: Any) -> None:
    found = score(url, cells[0])
    path = f"/v1/decisions/{found['id']}"
    said = {"word": "anomaly", "note": "a crack", "who": "Ada"}
    assert post(url, f"{path}/mark", json=said).json() == {"id": found["id"], "label": "anomaly"}
    stored = get(url, path)
    assert (stored["label"], stored["note"], stored["who"]) == ("anomaly", "a crack", "Ada")
    with Store(line.store_path) as store:
        assert [f.label for f in store.feedback()] == ["anomaly"]
    for image in line.folder.glob("*.png"):
        image.unlink()
    assert Image.open(io.BytesIO(get(url, f"{path}/picture"))).format == "JPEG"  # of the image that the mark kept


def test_a_picture_is_of_the_image_that_was_decided_on(url: str, cells: list[Path], line: Any) -> None:
    path = f"/v1/decisions/{score(url, cells[0])['id']}/picture"
    plain = np.asarray(Image.open(io.BytesIO(get(url, path, heat=0)))).astype(int)
    assert np.abs(plain - decode(cells[0])).mean() < 3
    assert get(url, path, heat=1) != get(url, path, heat=0)
    (image,) = line.folder.glob("*.png")
    image.write_bytes(cells[1].read_bytes())
    assert "not kept" in get(url, path, 404)["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"word": "maybe"}, 400),
        ({}, 400),
        ({"word": "good", "more": 1}, 400),
        ({"word": "good", "note": "x" * 501}, 400),
        ([], 400),
    ],
)
def test_a_wrong_mark_is_refused(body: Any, status: int, url: str, cells: list[Path]) -> None:
    path = f"/v1/decisions/{score(url, cells[0])['id']}/mark"
    assert post(url, path, json=body).status_code == status
    assert post(url, path, data="word=good").status_code == 415
    assert post(url, path, data=json.dumps({"word": "good"}), headers={"content-type": "text/plain"}).status_code == 415
    assert get(url, path.removesuffix("/mark"))["label"] is None


def test_what_is_not_there(url: str) -> None:
    for path in ("/v1/decisions/0123", "/v1/decisions/0123/picture", "/v1/sources/default/picture", "/nothing"):
        assert get(url, path, 404)["error"]
    assert post(url, "/v1/decisions/0123/mark", json={"word": "good"}).status_code == 404
    assert get(url, "/v1/score", 405)["error"]
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/index.html", "/page/"):
        assert requests.get(url + path, timeout=5).status_code == 404


def test_an_unreadable_image_gives_no_decision(url: str, cells: list[Path]) -> None:
    whole = cells[0].read_bytes()
    for body, kind, status in (
        (b"", "image/png", 400),
        (whole[:5000], "image/png", 400),
        (b"GIF89a" + b"\0" * 100, "image/png", 400),
        (whole, "text/html", 415),
        (whole, "multipart/form-data", 400),
    ):
        assert post(url, "/v1/score", data=body, headers={"content-type": kind}).status_code == status
    assert get(url, "/v1/decisions")["decisions"] == []


def test_a_bomb_is_refused(url: str) -> None:
    out = io.BytesIO()
    Image.new("L", (9000, 9000)).save(out, "PNG")
    refused = post(url, "/v1/score", data=out.getvalue(), headers=PNG)
    assert refused.status_code == 400 and "9000 x 9000 pixels, the limit is 25000000" in refused.json()["error"]


def test_malformed_images_are_refused_or_scored(url: str) -> None:
    """Every format, damaged at random: never a fault of the server."""
    draw = random.Random(6)
    session = requests.Session()
    bodies = []
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"):
        out = io.BytesIO()
        Image.effect_noise((40, 30), 60).convert("RGB").save(out, kind)
        bodies.append(out.getvalue())
    codes = set()
    for i in range(600):
        body = bytearray(bodies[i % 6])
        for _ in range(draw.randint(1, 8)):
            body[draw.randrange(min(len(body), 200))] = draw.randrange(256)
        sent = bytes(body[: draw.choice([len(body), draw.randrange(len(body))])])
        answer = session.post(f"{url}/v1/score", data=sent, headers=PNG, timeout=10)
        assert answer.status_code in (200, 400), (answer.status_code, answer.text, sent[:60])
        codes.add(answer.status_code)
    assert codes == {200, 400}


def test_state_and_metrics_agree_with_what_happened(url: str, cells: list[Path]) -> None:
    before = State.model_validate(get(url, "/v1/state"))
    assert before.sources[0].latest is None
    verdicts = [score(url, cell)["verdict"] for cell in cells]
    families = {f.name: f for f in text_string_to_metric_families(get(url, "/metrics").decode())}
    samples = {(s.name, *s.labels.values()): s.value for f in families.values() for s in f.samples}
    assert samples["ahl_frames_total", "default"] == len(cells)
    for verdict in ("pass", "unsure", "reject"):
        assert samples["ahl_decisions_total", "default", verdict] == verdicts.count(verdict)
    assert samples["ahl_stage_seconds_count", "score"] == len(cells)
    assert {name for name, *_ in samples if name.startswith("ahl_stage")} == {
        f"ahl_stage_seconds_{part}" for part in ("bucket", "count", "sum")
    }
    assert samples["ahl_queue_frames", "default"] == samples["ahl_dropped_frames_total", "default"] == 0
    assert samples["ahl_drift_alarm", "default"] == 0 and samples["process_resident_memory_bytes",] > 1e6


def test_temperatures(tmp_path: Path) -> None:
    for i, (kind, value) in enumerate([("cpu", "45500\n"), ("cpu", "51000"), ("gpu", "none")]):
        zone = tmp_path / f"thermal_zone{i}"
        zone.mkdir()
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(value)
    assert temperatures(tmp_path) == {"cpu": 45.5, "cpu-1": 51.0}
    assert temperatures(tmp_path / "none") == {}


def test_the_newest_frame_with_and_without_its_heat_map(url: str, cells: list[Path]) -> None:
    score(url, cells[0])
    plain, heat = (
        np.asarray(Image.open(io.BytesIO(get(url, "/v1/sources/default/picture", heat=h)))).astype(int) for h in (0, 1)
    )
    assert np.abs(plain - decode(cells[0])).mean() < 3
    assert plain.shape == heat.shape and np.abs(plain - heat).max() > 20
    assert get(url, "/v1/sources/default/picture", 400, heat=2)


def test_events_tell_of_a_decision(url: str, cells: list[Path]) -> None:
    with requests.get(f"{url}/v1/events", stream=True, timeout=10) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines(chunk_size=1)
        states = (json.loads(line[6:]) for line in lines if line.startswith(b"data: "))
        assert next(states)["sources"][0]["frames"] == 0
        found = score(url, cells[0])
        latest = next(s["sources"][0]["latest"] for s in states if s["sources"][0]["frames"])
        assert (latest["id"], latest["verdict"]) == (found["id"], found["verdict"])


def test_only_so_many_pages_are_open(url: str) -> None:
    streams = [requests.get(f"{url}/v1/events", stream=True, timeout=10) for _ in range(17)]
    for stream in streams[:16]:
        next(stream.iter_content(1))
    assert [s.status_code for s in streams] == [200] * 16 + [429]
    for stream in streams:
        stream.close()


def test_the_page_signs_in_with_the_token(line: Any, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ahl_runtime.http.app import build

    token = "a1b2c3d4" * 4
    monkeypatch.setenv("AHL_TOKEN", token)
    url = served(build(line, Settings())).url
    for path in ("/", "/page/page.js", "/healthz", "/readyz", "/v2/health/live"):
        assert requests.get(url + path, timeout=5).status_code == 200
    for path in ("/v1/state", "/v1/events", "/metrics", "/openapi.json", "/v2", "/v1/decisions", "/v1/nothing"):
        assert requests.get(url + path, timeout=5).status_code == 401
        assert requests.head(url + path, timeout=5).status_code == 401
    browser = requests.Session()
    assert browser.post(f"{url}/v1/session", json={"token": "wrong"}, timeout=5).status_code == 401
    signed = browser.post(f"{url}/v1/session", json={"token": token}, timeout=5)
    assert signed.status_code == 204
    cookie = signed.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and token not in cookie
    assert browser.get(f"{url}/v1/state", timeout=5).status_code == 200
