"""Check all settings that a caller gave by name, and report every problem at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

Settings = TypeVar("Settings")


def checked(kind: type[Settings], given: Mapping[str, Any], error: type[Exception]) -> Settings:
    """The dataclass `kind` with the `given` values, each of its field's type. `error` names every wrong key and value.

    Text is accepted for a path or a number, and for a tuple, with commas, as on the command line.
    """
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # a dataclass, which no type can say
    wrong = [_unknown(name, known) for name in given if name not in known]
    hints = get_type_hints(kind)
    wrong += [
        f"{name} is '': expected a path" for name, value in given.items() if value == "" and _is_path(hints.get(name))
    ]
    plain = {name: _plain(value, hints[name]) for name, value in given.items() if name in known}
    try:
        made = TypeAdapter(kind).validate_python(plain)
    except ValidationError as failed:
        wrong += [_message(e) for e in failed.errors()]
    if wrong:
        raise error("; ".join(wrong))
    return made


def _plain(value: Any, hint: Any) -> Any:
    """Convert a NumPy scalar to a Python one, a path to text and text with commas to a tuple, where one is expected."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str) and get_origin(hint) is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_path(hint: Any) -> bool:
    return hint is Path or Path in get_args(hint)


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"no setting {name!r}" + (f": did you mean {near[0]}?" if near else f": there are {', '.join(known)}")


def _message(problem: Any) -> str:
    """One problem that pydantic found, in one line."""
    name = ".".join(map(str, problem["loc"][:1]))
    if problem["type"] in ("missing", "missing_argument"):
        return f"{name} is missing"
    return f"{name} is {problem['input']!r:.80}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
