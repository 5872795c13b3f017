"""An image from a request: the body itself, or the one file of a form.

Forms are read by starlette's parser with two differences. Files stay in memory: starlette writes those above 1 MB to
the disk, which wears a device's flash, and the door limits the size. A truncated form is refused: starlette returns
its whole parts.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ahl_runtime.http.errors import Refusal

FORM = "multipart/form-data"
TYPES = (
    "image/png",
    "image/jpeg",
    "image/bmp",
    "image/tiff",
    "image/webp",
    "image/x-portable-pixmap",
    "application/octet-stream",
    FORM,
)
BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {kind: {} for kind in TYPES}}}  # for OpenAPI
_MAX_PARTS = 8
_MAX_FIELD = 4096  # bytes of a part that is no file


async def image_file(request: Request) -> bytes:
    """The image file's bytes, not yet decoded. Refusal, 400 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in TYPES:
        raise Refusal(415, f"content-type {kind[:80] or 'none'}: expected one of {', '.join(TYPES)}")
    body = await (_form_file(request) if kind == FORM else request.body())
    if not body:
        raise Refusal(400, "no image: the body is empty")
    return body


ImageFile = Annotated[bytes, Depends(image_file)]


class _WholeForm(MultiPartParser):
    """`ended`: the closing boundary came."""

    spool_max_size = 0  # bytes on the disk: never
    ended = False

    def on_end(self) -> None:
        """The closing boundary."""
        self.ended = True


async def _form_file(request: Request) -> bytes:
    """The bytes of the file called `image`, or of the only file."""
    parser = _WholeForm(
        request.headers,
        request.stream(),
        max_files=_MAX_PARTS,
        max_fields=_MAX_PARTS,
        max_part_size=_MAX_FIELD,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, f"{FORM}: {error.message}") from error
    except UnicodeError as error:  # of a charset that the form names
        raise Refusal(400, f"{FORM}: malformed") from error
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    named = [file for name, file in files if name == "image"] or [file for _, file in files]
    if not parser.ended or len(named) != 1:
        raise Refusal(400, f"{FORM}: expected one whole file called 'image', got {len(named)} in {len(files)} files")
    return await named[0].read()
