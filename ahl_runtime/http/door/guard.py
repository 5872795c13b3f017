"""The door: checks every request before its body is read, and gives every response the same security headers.

Stricter than starlette's middleware: its list of trusted hosts would have to name every IP address of the device, its
body limit has no time limit and no limit on the number of bodies in memory, and it has no check of the Origin.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ahl_runtime.http.door.access import Access
from ahl_runtime.http.door.rate import Rate
from ahl_runtime.http.errors import Refusal, refused

_LOG = logging.getLogger(__name__)
BODY_SECONDS = 30.0

# The page runs and loads the package's own files only, and no other site may frame it.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# These need no token: they tell nothing about the line, and probes and browsers request them without one.
PUBLIC = frozenset({"/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v1/session"})
PUBLIC_FILES = "/page/"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LITTLE = 1 << 12  # bytes of a body that no handler reads
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


class Guard:
    """An ASGI application around another. `names`: the host names of this device.

    `at_once`: requests with a body at the same time; `max_body`: bytes of each.
    """

    def __init__(
        self, app: ASGIApp, access: Access, rate: Rate, names: Iterable[str], max_body: int, at_once: int
    ) -> None:
        self.app = app
        self.access = access
        self.rate = rate
        self.names = frozenset(name.lower() for name in names) | {"localhost"}
        self.max_body = max_body
        self.at_once = at_once
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _with_headers(send)
        try:
            self._check(scope, Headers(scope=scope))
        except Refusal as refusal:
            await refused(refusal)(scope, receive, send)
            return
        if scope["method"] in _SAFE:
            await self.app(scope, _limited(receive, _LITTLE), send)
            return
        if self._held >= self.at_once:
            busy = Refusal(429, f"{self._held} requests are in progress, the limit is {self.at_once}", _after(1))
            await refused(busy)(scope, receive, send)
            return
        self._held += 1
        try:
            await self.app(scope, _limited(receive, self.max_body), send)
        finally:
            self._held -= 1

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refusal for a request that must not reach the application."""
        client = (scope.get("client") or ("local",))[0]
        wait = self.rate.wait(client)
        if wait:
            raise Refusal(429, f"more than {self.rate.per_second:g} requests a second: send fewer", _after(wait))
        self._check_host(headers)
        _check_origin(scope, headers)
        if not is_public(scope["path"]) and not self.access.allows(headers.get("authorization"), headers.get("cookie")):
            _LOG.warning("refused %s without a valid token, from %s", scope["method"], client)
            raise Refusal(401, "a token is needed: send Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
        _check_body(headers, _LITTLE if scope["method"] in _SAFE else self.max_body)

    def _check_host(self, headers: Headers) -> None:
        """Refuse a name that anyone may point here (DNS rebinding). An IP address cannot be pointed elsewhere."""
        match = _HOST.fullmatch(headers.get("host", ""))
        if match is None:
            raise Refusal(400, "the Host header is missing or malformed")
        name = match["name"].lower()
        if name not in self.names and not _is_address(name.strip("[]")):
            raise Refusal(421, f"this device does not have the name {name[:80]}: add it to the names in the settings")


def is_public(path: str) -> bool:
    """Is this path open without a token?"""
    return path in PUBLIC or path.startswith(PUBLIC_FILES)


def _check_origin(scope: Scope, headers: Headers) -> None:
    """Refuse a request that another site makes a browser send (CSRF). A link from another site may open the page."""
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"{scope['scheme']}://{headers.get('host', '')}".lower():
        raise Refusal(403, f"a request from another site: {origin[:80]}")
    site = headers.get("sec-fetch-site", "none")
    followed = scope["path"] == "/" and scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("same-origin", "none") and not followed:
        raise Refusal(403, "a request from another site")


def _check_body(headers: Headers, most: int) -> None:
    length = headers.get("content-length")
    if length is not None and int(length) > most:  # the server has checked that it is a number
        raise Refusal(413, f"a body of {length[:20]} bytes, the limit is {most}")
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refusal(415, f"a body in content-encoding {encoding[:40]}: send it as it is")


def _limited(receive: Receive, most: int) -> Receive:
    """Reads a body of at most `most` bytes, within BODY_SECONDS."""
    size = 0
    whole = False
    end = asyncio.get_running_loop().time() + BODY_SECONDS

    async def limited() -> Message:
        nonlocal size, whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body took longer than {BODY_SECONDS:g} seconds") from None
        size += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if size > most:
            raise HTTPException(413, f"a body of more than {most} bytes")
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return with_headers


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(max(1, math.ceil(seconds)))}
