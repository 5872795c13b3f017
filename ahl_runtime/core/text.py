"""Text from files and devices, made fit for a terminal and a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """One printable line: names from files may hold anything."""
    joined = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)
