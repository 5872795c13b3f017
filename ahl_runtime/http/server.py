"""The server in the process: a socket, optional TLS, and uvicorn in a thread of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from ahl_runtime.http.door.connection import Connection
from ahl_runtime.http.errors import ServerError
from ahl_runtime.http.settings import Settings

_START_SECONDS = 30.0
_STOP_SECONDS = 5
_CONNECTIONS = 256


class Server:
    """Serves an application while the context is open. `port`: the real one if the settings have 0.

    `stopping`: called before it stops, to end streams. `listening`: the socket from `listen`, None for a new one.
    ServerError if it cannot listen on the address.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        stopping: Callable[[], None] = lambda: None,
        listening: socket.socket | None = None,
    ) -> None:
        self._stopping = stopping
        context = _tls(settings)
        self._socket = listening or listen(settings)
        self.port: int = self._socket.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"{'https' if context else 'http'}://{host}:{self.port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http=Connection,
                ws="none",
                lifespan="on",
                proxy_headers=False,  # the rate limit counts the address that connects, not one that a header claims
                server_header=False,
                limit_concurrency=_CONNECTIONS,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=_STOP_SECONDS,
                ssl_context_factory=(lambda _config, _default: context) if context else None,
            )
        )
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._failed: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(_START_SECONDS / 0.02)):
            if self._server.started:
                return self
            if not self._thread.is_alive():
                break
            waited.wait(0.02)
        self._server.should_exit = True
        raise ServerError(f"{self.url}: the server did not start ({self._failed or 'it took too long'})")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping()
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS + 5)

    @property
    def alive(self) -> bool:
        """Is the server still running?"""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # nothing else reports the end of a thread
            self._failed = error
        finally:
            self._socket.close()


def listen(settings: Settings) -> socket.socket:
    """A socket on the address of the settings, which no one else can take any more. ServerError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise ServerError(
            f"{settings.host}:{settings.port}: cannot listen there ({error.strerror or error}): "
            "choose another port or address"
        ) from error
    return listening


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
        if settings.client_authority:
            context.load_verify_locations(settings.client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ServerError(
            f"TLS: {error.strerror or error if isinstance(error, OSError) else error}: check the PEM files "
            f"{settings.certificate}, {settings.key} and {settings.client_authority}"
        ) from error
    return context


def _no_password() -> bytes:
    """Refuse an encrypted key: OpenSSL would ask for its passphrase on a terminal that a service does not have."""
    raise ValueError("the key has a passphrase: give one without")
