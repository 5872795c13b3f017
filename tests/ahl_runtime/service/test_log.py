"""Warnings of a command: one line of text for a person."""

import logging

from ahl_runtime.service.log import Plain


def test_the_fields_follow_the_message() -> None:
    record = logging.makeLogRecord(
        {"levelname": "WARNING", "msg": "%s\nfails", "args": ("left",), "error": "no \x1bcable", "count": 3}
    )
    assert Plain().format(record) == "warning: left fails (error: no \\x1bcable, count: 3)"
