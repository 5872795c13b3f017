"""The door, on a real server: who gets in, with what, how often; and what every response carries."""

import http.client
import logging
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ahl_runtime.http.door import connection, guard
from ahl_runtime.http.door.access import COOKIE, Access
from ahl_runtime.http.door.guard import HEADERS, Guard
from ahl_runtime.http.door.rate import Rate
from ahl_runtime.http.errors import ServerError
from ahl_runtime.http.server import Server
from ahl_runtime.http.settings import Settings

TOKEN = "c3b1f5a2" * 4
Serve = Callable[..., Server]


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def broken(_: Request) -> Response:
    raise ZeroDivisionError


def app(token: str | None = None, rate: float = 1e6, at_once: int = 8) -> ASGIApp:
    inner = Starlette(
        routes=[
            Route("/echo", echo, methods=["GET", "POST"]),
            Route("/broken", broken),
            Route("/", echo),
            Route("/healthz", echo),
        ]
    )
    return Guard(inner, Access(token), Rate(rate), ["line-3.factory"], 1000, at_once)


def test_every_response_has_the_safe_headers(served: Serve) -> None:
    url = served(app(TOKEN)).url
    for path in ("/", "/echo", "/nothing"):
        found = requests.get(url + path, timeout=5).headers
        assert {k: found[k] for k in HEADERS} == HEADERS
        assert "unsafe" not in found["content-security-policy"]
        assert found["cache-control"] == "no-store"
        assert "server" not in found
    found = requests.get(url + "/broken", headers={"authorization": f"Bearer {TOKEN}"}, timeout=5)
    assert found.status_code == 500 and found.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer  {TOKEN}"}, 200),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": TOKEN}, 401),
        ({"cookie": f"{COOKIE}={TOKEN}"}, 401),
        ({"cookie": f"{COOKIE}=99999999999.{'0' * 64}"}, 401),
        ({"cookie": f"{COOKIE}={Access(TOKEN).session()}"}, 200),
        ({"cookie": f"{COOKIE}={Access(TOKEN[::-1]).session()}"}, 401),
        ({"cookie": f"{COOKIE}=9{Access(TOKEN).session()}"}, 401),
        ({"cookie": "\x7f=;;;=="}, 401),
    ],
)
def test_the_token_opens(header: dict[str, str], status: int, served: Serve) -> None:
    url = served(app(TOKEN)).url
    assert requests.get(url + "/echo", headers=header, timeout=5).status_code == status
    assert requests.get(url + "/healthz", headers=header, timeout=5).status_code == 200


def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(TOKEN)
    cookie = f"{COOKIE}={access.session()}"
    assert access.allows(None, cookie)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 31 * 24 * 3600)
    assert not access.allows(None, cookie)


def test_the_token_is_never_logged(served: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = served(app(TOKEN)).url
    wrong = TOKEN[:-1] + "z"
    for given in (TOKEN, wrong):
        requests.get(url + "/echo", headers={"authorization": f"Bearer {given}"}, timeout=5)
    assert "without a valid token" in caplog.text
    assert TOKEN not in caplog.text and wrong not in caplog.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LINE-3.factory:8080", 200),
        ("[::1]:80", 200),
        ("10.1.2.3", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("a b", 400),
        ("", 400),
        ("user@localhost", 400),
        ("localhost:99999999", 400),
    ],
)
def test_a_name_that_anyone_can_point_here_is_refused(host: str, status: int, served: Serve) -> None:
    assert requests.get(served(app()).url + "/echo", headers={"host": host}, timeout=5).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "{url}", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_what_another_site_sends_is_refused(headers: dict[str, str], status: int, served: Serve) -> None:
    url = served(app()).url
    sent = {k: v.format(url=url) for k, v in headers.items()}
    assert requests.post(url + "/echo", b"x", headers=sent, timeout=5).status_code == status


def test_a_link_from_another_site_opens_the_page_alone(served: Serve) -> None:
    url = served(app()).url
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert requests.get(url + "/", headers=followed, timeout=5).status_code == 200
    assert requests.get(url + "/echo", headers=followed, timeout=5).status_code == 403


def test_a_large_body_is_refused_however_it_comes(served: Serve) -> None:
    server = served(app())
    for size, status in ((1000, 200), (1001, 413)):
        assert requests.post(server.url + "/echo", b"x" * size, timeout=5).status_code == status
        chunks = (b"x" for _ in range(size))
        assert requests.post(server.url + "/echo", chunks, timeout=5).status_code == status
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    client.request("POST", "/echo", headers={"content-length": str(10**15)})
    assert client.getresponse().status == 413  # before a byte of it was sent


def test_a_compressed_body_is_refused(served: Serve) -> None:
    refused = requests.post(served(app()).url + "/echo", b"x", headers={"content-encoding": "gzip"}, timeout=5)
    assert refused.status_code == 415 and "gzip" in refused.json()["error"]


def test_a_body_that_never_ends(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    server = served(app())
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow:
        slow.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("begun", [b"", b"GET /echo HT", b"GET /echo HTTP/1.1\r\nHost: localhost\r\nX: 1\r\n"])
def test_a_connection_that_asks_nothing_is_closed(begun: bytes, served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    server = served(app())
    whole = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for first in (b"", whole):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as silent:
            if first:
                silent.sendall(first)
                answer = b""
                while not answer.endswith(b"\r\n\r\n0"):
                    answer += silent.recv(2000)
            if begun:
                silent.sendall(begun)
            if begun or not first:  # a whole request and then silence is uvicorn's own keep-alive
                began = time.monotonic()
                assert silent.recv(2000) == b""
                assert time.monotonic() - began < 2


def test_only_so_many_bodies_are_held_at_once(served: Serve) -> None:
    server = served(app(at_once=1))
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow:
        slow.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
        deadline = time.monotonic() + 5
        while (second := requests.post(server.url + "/echo", b"x", timeout=5)).status_code == 200:
            assert time.monotonic() < deadline
        assert second.status_code == 429 and second.headers["retry-after"] == "1"
        assert requests.get(server.url + "/echo", timeout=5).status_code == 200
        slow.sendall(b"x" * 9)
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
    assert requests.post(server.url + "/echo", b"x", timeout=5).status_code == 200


def test_a_client_that_asks_too_often(served: Serve) -> None:
    url = served(app(rate=5)).url
    codes = [requests.get(url + "/echo", timeout=5).status_code for _ in range(30)]
    assert codes[:10] == [200] * 10 and 429 in codes
    time.sleep(0.5)
    assert requests.get(url + "/echo", timeout=5).status_code == 200


def test_each_client_has_its_own_rate() -> None:
    rate = Rate(1)
    assert [rate.wait("10.0.0.1") > 0 for _ in range(3)] == [False, False, True]
    assert rate.wait("10.0.0.2") == 0
    assert [rate.wait(f"2001:db8::{i}") > 0 for i in range(3)] == [False, False, True]
    assert rate.wait("2001:db8:0:1::1") == 0


def test_the_port_is_taken(served: Serve) -> None:
    with pytest.raises(ServerError, match="cannot listen there"):
        Server(app(), Settings(port=served(app()).port))


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, a server's and a client's certificate, made with openssl. Python 3.13 checks their extensions."""

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=tmp_path)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run(*new, "/CN=authority", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", *usage)
    (tmp_path / "san").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    for name in ("server", "client"):
        run(*new, f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san", "-days", "2")
        run("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    return tmp_path


def test_mutual_tls(certificates: Path, served: Serve) -> None:
    files = {"certificate": certificates / "server.pem", "key": certificates / "server.key"}
    url = served(app(), Settings(port=0, **files, client_authority=certificates / "ca.pem")).url
    assert url.startswith("https://")
    trusted = {"verify": str(certificates / "ca.pem"), "timeout": 5}
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url + "/echo", **trusted)
    own = (str(certificates / "client.pem"), str(certificates / "client.key"))
    assert requests.get(url + "/echo", cert=own, **trusted).status_code == 200


def test_tls_files_that_are_none(certificates: Path) -> None:
    with pytest.raises(ServerError, match=r"TLS: .*check the PEM files"):
        Server(app(), Settings(port=0, certificate=certificates / "san", key=certificates / "server.key"))
