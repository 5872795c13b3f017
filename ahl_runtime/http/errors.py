"""What a request is refused with: a status code and the reason, told to who asked."""

from __future__ import annotations

from ahl_runtime.core.errors import RuntimeFault


class Refusal(RuntimeFault):
    """A request that is not answered. `status`: 4xx or 5xx; `headers`: to send along."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or {}


class ServerError(RuntimeFault):
    """The server cannot start, or must not start like this."""
