"""An image from a request: the body itself, or the one file of a form."""

from __future__ import annotations

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

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
_MOST_PARTS = 8


def file(body: bytes, content_type: str) -> bytes:
    """The image file's bytes, not yet looked at. Refusal, 400 or 415."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in TYPES:
        raise Refusal(415, f"content-type {kind[:80] or 'none'}: expected one of {', '.join(TYPES)}")
    if kind == FORM:
        body = _file(body, content_type)
    if not body:
        raise Refusal(400, "no image: the body is empty")
    return body


def _file(body: bytes, content_type: str) -> bytes:
    """The bytes of the part called `image`, or of the only part."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise Refusal(400, f"{FORM}: no boundary, or one longer than 70 characters")
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"{FORM}: malformed") from error
    named = [chunks for name, chunks in form.parts if name == b"image"] or [chunks for _, chunks in form.parts]
    if not form.ended or len(named) != 1:
        raise Refusal(
            400, f"{FORM}: expected one whole part called 'image', got {len(named)} in {len(form.parts)} parts"
        )
    return b"".join(named[0])


class _Form:
    """The parts of a form, in memory: the body's size was limited before."""

    def __init__(self) -> None:
        self.parts: list[tuple[bytes, list[bytes]]] = []
        self.ended = False
        self._header = b""
        self._value = b""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": self._field,
            "on_header_value": self._add,
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == _MOST_PARTS:
            raise Refusal(400, f"{FORM}: more than {_MOST_PARTS} parts")
        self.parts.append((b"", []))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1][1].append(data[start:end])

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            name = parse_options_header(self._value)[1].get(b"name", b"")
            self.parts[-1] = (name, self.parts[-1][1])
        self._header = self._value = b""

    def _end(self) -> None:
        self.ended = True
