"""Writes figures between two markers of a documentation page. A page is written completely or not at all."""

import os
from pathlib import Path

from ahl_train.errors import RunError


def write(target: Path, text: str) -> Path:
    """Write to a temporary file, then rename it. RunError if that fails."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(target)
    except OSError as error:
        raise RunError(f"{target} cannot be written ({error.strerror}): free space") from error
    finally:
        aside.unlink(missing_ok=True)
    return target


def write_into(page: Path, text: str, markers: tuple[str, str]) -> Path:
    """Replace the text between the page's markers. RunError without page or markers."""
    return write(page, insert(page, text, markers))


def insert(page: Path, text: str, markers: tuple[str, str]) -> str:
    """The page with the text between its markers. RunError without page or markers."""
    try:
        body = page.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{page} cannot be read ({error.strerror}): check the path") from None
    head, start, rest = body.partition(markers[0])
    _, end, tail = rest.partition(markers[1])
    if not (start and end):
        raise RunError(f"{page} lacks the markers {markers[0]} and {markers[1]}")
    return f"{head}{start}\n{text}{end}{tail}"
