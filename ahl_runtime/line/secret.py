"""Read secrets from files: passwords, tokens, addresses with a password. Logs and messages never show them."""

from __future__ import annotations

from pathlib import Path

from ahl_runtime.core.errors import ConfigError

_MOST = 4096


def read_secret(path: Path) -> str:
    """The secret in a file: one line of printable text. ConfigError, whose message does not show it."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from error
    if not text or len(text) > _MOST or not text.isprintable():
        raise ConfigError(f"{path}: expected one line of printable text")
    return text
