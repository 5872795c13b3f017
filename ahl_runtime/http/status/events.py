"""Server-sent events: the line's state at every change and every 2 seconds: a client notices a lost connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ahl_runtime.http.errors import Refusal, refused

_EVERY = 0.25  # seconds between looks at the line
_AT_LEAST = 2.0  # seconds between states, changed or not
_STREAMS = 16


class Events:
    """`text`: returns the state as JSON; called in a thread. `stop`, from any thread, ends every stream."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
        self._streams = 0
        self._stopped = False

    def stop(self) -> None:
        """End the streams: the server stops."""
        self._stopped = True

    async def endpoint(self, request: Request) -> Response:
        """A stream; 429 if too many are open."""
        if self._streams >= _STREAMS:
            return refused(Refusal(429, f"{_STREAMS} pages are open: close one", {"retry-after": "5"}))
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _stream(self) -> AsyncIterator[str]:
        self._streams += 1
        clock = asyncio.get_running_loop().time
        sent, when = "", clock() - _AT_LEAST
        try:
            while not self._stopped:
                text = await asyncio.to_thread(self._text)
                if text != sent or clock() - when >= _AT_LEAST:
                    sent, when = text, clock()
                    yield f"event: state\ndata: {text}\n\n"
                await asyncio.sleep(_EVERY)
        finally:
            self._streams -= 1
