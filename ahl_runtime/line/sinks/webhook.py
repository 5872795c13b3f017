"""HTTP POST, one message in each request. The header Idempotency-Key holds the id: receivers detect repeats by it."""

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
    """A URL that receives messages by POST. `token_file`: the file of a bearer token to send."""

    kind: Literal["webhook"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    token_file: Path | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirected POST becomes a GET without its message."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Webhook:
    """An answer 2xx means delivered; after any other answer the outbox tries again, in order."""

    def __init__(self, settings: WebhookSink) -> None:
        self._url, self._timeout = settings.url, settings.timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": "ahl-runtime"}
        if settings.token_file is not None:
            self._headers["Authorization"] = f"Bearer {read_secret(settings.token_file)}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, messages: Sequence[Message]) -> int:
        """Post one message after another until one fails. SinkError if the first one fails."""
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
        """Do nothing: no connection stays open."""


WEBHOOK = SinkKind(WebhookSink, Webhook)
