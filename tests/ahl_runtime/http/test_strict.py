"""What FastAPI would let pass, and the server refuses; what FastAPI would refuse, and the server answers."""

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from ahl_runtime.http.app import build
from ahl_runtime.http.server import Server
from ahl_runtime.http.settings import Settings

JSON = {"content-type": "application/json"}


def error(answered: requests.Response, status: int) -> str:
    assert answered.status_code == status, answered.text
    return str(answered.json()["error"])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/healthz?x=1", "'x': this route takes no query parameters"),
        ("/v1/decisions?limit=1&limit=1", "'limit' is given 2 times"),
        ("/v1/decisions?limit=0&colour=red", "query.colour: Extra inputs are not permitted"),
        ("/v1/decisions?limit=0&colour=red", "query.limit: Input should be greater than or equal to 1"),
    ],
)
def test_a_query_is_refused(path: str, reason: str, url: str) -> None:
    assert reason in error(requests.get(url + path, timeout=5), 400)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body: Field required"),
        (b"{", "not JSON at character 1: Expecting property name"),
        (b"[]", "the body: Input should be a valid dictionary"),
        (b'["\xff"]', "not JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "not JSON: maximum recursion depth"),
        (b'{"bundle": "a.ahl", "more": 1}', "more: Extra inputs are not permitted"),
        (b'{"bundle": NaN}', "bundle: Input should be a valid string"),
    ],
)
def test_a_body_is_refused(body: bytes, reason: str, url: str) -> None:
    assert reason in error(requests.post(f"{url}/v1/deploy", body, headers=JSON, timeout=5), 400)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/vnd.a+json"])
def test_a_body_of_another_type_is_refused(kind: str, url: str) -> None:
    refused = requests.post(f"{url}/v1/deploy", b'{"bundle": "a.ahl"}', headers={"content-type": kind}, timeout=5)
    assert "expected application/json" in error(refused, 415)


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/state", "/openapi.json", "/page/page.js"])
def test_head_is_get_without_a_body(path: str, url: str) -> None:
    head, get = (requests.request(method, url + path, timeout=5) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"") and get.content
    assert head.headers["content-type"] == get.headers["content-type"]
    assert requests.head(f"{url}/v1/score", timeout=5).status_code == 405


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect", "/healthz/"])
def test_fastapi_adds_no_page(path: str, url: str) -> None:
    """Its pages load scripts from another site; nor does a slash redirect."""
    assert requests.get(url + path, timeout=5, allow_redirects=False).status_code == 404


def test_no_telemetry_is_sent(
    line: Any, served: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the environment says: FastAPI would look for an exporter as the server starts, and log what it did."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert requests.get(f"{served(build(line, Settings(port=0))).url}/healthz", timeout=5).status_code == 200
    assert "telemetry" not in caplog.text


def test_a_large_form_stays_in_memory(url: str, cells: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def rollover(file: object) -> None:
        raise AssertionError("a file was written")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rollover)
    body = cells[0].read_bytes() + bytes(3_000_000)  # a decoder reads no further than the image's end
    assert requests.post(f"{url}/v1/score", files={"image": body}, timeout=10).status_code == 200


@pytest.mark.parametrize("charset", ["undefined", "idna", "base64", "none-such"])
def test_a_form_of_any_charset_is_no_fault(charset: str, url: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="\xffx"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    assert error(requests.post(f"{url}/v1/score", part, headers=headers, timeout=5), 400)


def test_eight_handlers_run_at_once(line: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def check_ready() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.1)
        with lock:
            running -= 1

    monkeypatch.setattr(line, "check_ready", check_ready)
    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda _: requests.get(f"{url}/readyz", timeout=20).status_code, range(24)))
    assert answers == [200] * 24
    assert most == 8
