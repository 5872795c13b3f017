"""What a request is refused with: a status code and the reason, sent to the client as {"error": "..."}."""

from __future__ import annotations

from starlette.responses import JSONResponse

from ahl_runtime.core.errors import (
    BundleError,
    Busy,
    EngineError,
    ImageError,
    NoSource,
    RuntimeFault,
    SideFileError,
    SourceError,
    StoreError,
)
from calibration import CalibrationError


class Refusal(RuntimeFault):
    """A request that is not answered. `status`: 4xx or 5xx; `headers`: sent with the response."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or {}


class ServerError(RuntimeFault):
    """The server cannot start, or must not start with these settings."""


def refused(refusal: Refusal) -> JSONResponse:
    """The response to a refused request."""
    return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)


def refusal(error: RuntimeFault | CalibrationError) -> Refusal:
    """The status of an error: a fault of the request (4xx), a state of the device (409, 503), or its fault (500)."""
    match error:
        case Refusal():
            return error
        case ImageError():
            return Refusal(400, str(error))
        case NoSource():
            return Refusal(404, str(error))
        case SideFileError() | StoreError() | BundleError() | SourceError() | CalibrationError():
            return Refusal(409, str(error))
        case EngineError() | Busy():
            return Refusal(503, str(error))
        case _:
            return Refusal(500, str(error))
