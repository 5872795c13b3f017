"""Log to stderr: JSON lines, where systemd and containers collect them, or text for a person."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from ahl_runtime.core.text import printable

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Json(logging.Formatter):
    """Formats a record with `time`, `level`, `logger`, `message`, the fields of `extra`, and a `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{k: v for k, v in vars(record).items() if k not in _USUAL},
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class Plain(logging.Formatter):
    """Formats a record as one line for a person at a terminal: the level, the message, the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = ", ".join(f"{k}: {v}" for k, v in vars(record).items() if k not in _USUAL)
        return printable(f"{record.levelname.lower()}: {record.getMessage()}{f' ({fields})' if fields else ''}")


def plain() -> None:
    """For a command: log warnings and errors to stderr as text, unless the program that runs it logs already."""
    logging.basicConfig(level=logging.WARNING, handlers=[_to_stderr(Plain())])


def setup(level: str) -> None:
    """For the service: log records of ahl-runtime at `level` or above, and warnings and errors of libraries."""
    logging.basicConfig(level=logging.WARNING, handlers=[_to_stderr(Json())], force=True)
    logging.captureWarnings(True)  # such as those of Pillow on unusual files
    logging.getLogger("ahl_runtime").setLevel(level.upper())
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


def _to_stderr(formatter: logging.Formatter) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    return handler
