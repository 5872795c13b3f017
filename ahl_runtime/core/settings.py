"""Check all settings that a caller gave by name, and report every problem at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

Settings = TypeVar("Settings")


def checked(kind: type[Settings], given: Mapping[str, Any], error: type[Exception]) -> Settings:
    """The dataclass `kind` with the `given` values, each of its field's type. `error` names every wrong key and value.

    Text is accepted for a path or a number, and a list for a tuple.
    """
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # a dataclass, which no type can say
    wrong = [_unknown(name, known) for name in given if name not in known]
    plain = {name: _plain(value) for name, value in given.items() if name in known}
    try:
        made = TypeAdapter(kind).validate_python(plain)
    except ValidationError as failed:
        wrong += [_message(e) for e in failed.errors()]
    if wrong:
        raise error("; ".join(wrong))
    return made


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python one and a path to text. Other values stay as they are."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"no setting {name!r}" + (f": did you mean {near[0]}?" if near else f": there are {', '.join(known)}")


def _message(problem: Any) -> str:
    """One problem that pydantic found, in one line."""
    name = ".".join(map(str, problem["loc"][:1]))
    if problem["type"] in ("missing", "missing_argument"):
        return f"{name} is missing"
    return f"{name} is {problem['input']!r:.80}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
