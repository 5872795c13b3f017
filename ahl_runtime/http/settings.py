"""The server's settings, checked together: where it listens, who has access, and the limits."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ahl_runtime.http.errors import ServerError

LOCAL = "127.0.0.1"
TOKEN_VARIABLE = "AHL_TOKEN"
_SHORTEST = 20
_MAX_TOKEN_BYTES = 4096
_WAY_OUT = "openssl rand -hex 24 makes a good one"


class Settings(BaseModel):
    """`token_file`: a file with the bearer token; else the variable AHL_TOKEN has it. Without both, no token is needed.

    `certificate` and `key`: PEM, for TLS; with `client_authority`, clients need a certificate that it signed. `names`:
    host names of this device; its addresses and localhost are always accepted. `max_body`: bytes of a
    request. `max_pixels`: of an image, or of all frames of a request. `rate`: requests a second, for each client.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = LOCAL
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_authority: Path | None = None
    names: tuple[str, ...] = ()
    max_body: Annotated[int, Field(ge=1 << 10, le=1 << 30)] = 32 << 20
    max_pixels: Annotated[int, Field(ge=1)] = 25_000_000
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 200.0
    at_once: Annotated[int, Field(ge=1, le=256)] = 8

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        if self.client_authority and not self.certificate:
            raise ValueError("client_authority needs certificate and key: without TLS no client shows a certificate")
        return self

    @property
    def loopback(self) -> bool:
        """Can only this device reach it?"""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def token(self) -> str | None:
        """The bearer token, from its file or the environment. ServerError, which never contains the token."""
        if self.token_file is not None:
            return _from_file(self.token_file)
        found = os.environ.get(TOKEN_VARIABLE)
        return None if found is None else _checked(found.strip(), f"the variable {TOKEN_VARIABLE}")


def check_exposure(settings: Settings, token: str | None) -> None:
    """ServerError for a server that other devices can reach without a token or a certificate."""
    if not settings.loopback and token is None and settings.client_authority is None:
        raise ServerError(
            f"{settings.host} can be reached from outside this device: give a token (token_file, or the variable "
            f"{TOKEN_VARIABLE}; {_WAY_OUT}) or client_authority, or listen on {LOCAL}"
        )


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o007:
                raise ServerError(f"{path}: every user of this device can read or write it: chmod o= {path}")
            body = file.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise ServerError(f"{path}: the token cannot be read ({error.strerror or error}): check the path") from error
    try:
        return _checked(body.decode("ascii").strip(), str(path))
    except UnicodeDecodeError:
        raise ServerError(f"{path}: not a token: expected printable ASCII; {_WAY_OUT}") from None


def _checked(token: str, where: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token or len(token) > _MAX_TOKEN_BYTES:
        raise ServerError(f"{where}: not a token: expected printable ASCII without spaces; {_WAY_OUT}")
    if len(token) < _SHORTEST:
        raise ServerError(f"{where}: {len(token)} characters, a token has {_SHORTEST} or more: {_WAY_OUT}")
    return token
