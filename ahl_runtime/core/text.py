"""Make text from files and devices safe to print in a terminal or a log."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """The text as one printable line. Text from files can contain any character."""
    joined = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def without_password(text: str) -> str:
    """The text without the users and passwords of its addresses, such as ``rtsp://ann:secret@camera/live``."""
    return re.sub(r"//[^/\s]*@", "//", text)
