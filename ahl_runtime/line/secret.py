"""Secrets that a file holds: passwords, tokens, addresses with a password in them. Never logged, never in a message."""

from __future__ import annotations

from pathlib import Path

from ahl_runtime.core.errors import ConfigError

_MOST = 4096


def read_secret(path: Path) -> str:
    """One line of printable text; ConfigError, which does not say it."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from error
    if not text or len(text) > _MOST or not text.isprintable():
        raise ConfigError(f"{path}: expected one line of printable text")
    return text
