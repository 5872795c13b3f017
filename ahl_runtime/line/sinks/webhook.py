"""HTTP POST: one message a request, its id in Idempotency-Key, so that a receiver knows a repeat."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ahl_runtime.core.errors import SinkError
from ahl_runtime.line.secret import read_secret
from ahl_runtime.line.sinks.kinds import SinkKind
from ahl_runtime.line.sinks.settings import SinkSettings
from ahl_runtime.line.store.journal import Message


class WebhookSink(SinkSettings):
    """POST, one message a request. `token_file`: sent as a bearer token."""

    kind: Literal["webhook"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    token_file: Path | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET, without its message."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Webhook:
    """2xx is taken for delivered; anything else is tried again, in order."""

    def __init__(self, part: WebhookSink) -> None:
        self._url, self._timeout = part.url, part.timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": "ahl-runtime"}
        if part.token_file is not None:
            self._headers["Authorization"] = f"Bearer {read_secret(part.token_file)}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, messages: Sequence[Message]) -> int:
        """One after another, as far as they are taken. SinkError if the first is not."""
        for i, message in enumerate(messages):
            headers = {**self._headers, "Idempotency-Key": message.id}
            request = urllib.request.Request(self._url, message.text.encode(), headers)
            try:
                with self._opener.open(request, timeout=self._timeout) as answer:
                    answer.read(1 << 16)
            except urllib.error.HTTPError as error:
                error.close()
                if i == 0:
                    raise SinkError(f"the webhook answers {error.code} {error.reason}") from error
                return i
            except (OSError, ValueError) as error:
                if i == 0:
                    raise SinkError(f"the webhook cannot be reached ({error})") from error
                return i
        return len(messages)

    def close(self) -> None:
        """Nothing is held."""


WEBHOOK = SinkKind(WebhookSink, Webhook)
