"""`ahl-runtime status` and `deploy`: what they ask of a running line, and what they make of its answer."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.ahl_runtime.cli.support import lines, run

SOURCE = {"name": "left", "state": "live", "said": "watching in", "frames": 3, "passed": 1, "unsure": 1, "rejected": 1}
QUIET = {"dropped": 0, "queue": 0, "drift": {"state": "ok", "said": "no drift"}}
STATE = {
    "model": {"name": "cells", "digest": "0123456789abcdef", "engine": "onnxruntime"},
    "sources": [SOURCE | QUIET],
    "faults": [],
}


class Line(ThreadingHTTPServer):
    """Answers every request with `answer`; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, Any] = (200, STATE)
        self.asked: list[tuple[str, str, Any, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Line

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = json.loads(body) if body else None
        self.server.asked.append((self.command, self.path, sent, self.headers.get("Authorization")))
        code, answer = self.server.answer
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_POST = do_GET  # noqa: N815 (http.server's name)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def line() -> Iterator[Line]:
    with Line() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_line_that_is_well(line: Line) -> None:
    told = run("status", "--url", line.url).stdout.splitlines()
    assert told == [
        "model cells 0123456789ab on onnxruntime",
        "source left: live, watching in: 3 frames, 1 passed, 1 unsure, 1 rejected, 0 dropped, 0 queue; no drift",
    ]
    assert lines(run("status", "--url", line.url, "--json")) == [STATE]
    assert line.asked == [("GET", "/v1/state", None, None)] * 2


@pytest.mark.parametrize(
    "trouble",
    [{"faults": ["disk full"]}, {"sources": [SOURCE | QUIET | {"drift": {"state": "alarm", "said": "drift"}}]}],
)
def test_trouble_exits_with_1(line: Line, trouble: dict[str, Any]) -> None:
    line.answer = (200, STATE | trouble)
    told = run("status", "--url", line.url, code=1).stdout
    assert ("fault: disk full" in told) == ("faults" in trouble)
    assert lines(run("status", "--url", line.url, "--json", code=1)) == [STATE | trouble]


def test_deploy(line: Line) -> None:
    line.answer = (200, {"active": "b"})
    assert lines(run("deploy", "b.ahl", "--url", line.url + "/")) == [{"active": "b"}]
    assert line.asked == [("POST", "/v1/deploy", {"bundle": "b.ahl"}, None)]
    line.answer = (409, {"error": "b.ahl: no such bundle"})
    assert (
        run("deploy", "b.ahl", "--url", line.url, code=2).stderr == f"error: {line.url}: 409: b.ahl: no such bundle\n"
    )
    line.answer = (500, ["no reason"])
    assert f"{line.url}: 500: Internal Server Error" in run("deploy", "b.ahl", "--url", line.url, code=2).stderr


def test_a_wrong_address() -> None:
    assert "expected http://HOST:PORT" in run("status", "--url", "localhost:8080", code=2).stderr
    assert "does ahl-runtime serve run there?" in run("status", "--url", "http://127.0.0.1:9", code=2).stderr
