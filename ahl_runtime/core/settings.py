"""Settings that a caller gave by name, checked together."""

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
    """A dataclass of settings, each value of its field's type; `error` names every key and value that is wrong.

    Text stands for a path or a number where one is expected, a list for a tuple.
    """
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # a dataclass, which no type can say
    wrong = [_unknown(name, known) for name in given if name not in known]
    plain = {name: _plain(value) for name, value in given.items() if name in known}
    try:
        made = TypeAdapter(kind).validate_python(plain)
    except ValidationError as failed:
        wrong += [_said(e) for e in failed.errors()]
    if wrong:
        raise error("; ".join(wrong))
    return made


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, paths as text."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"no setting {name!r}" + (f": did you mean {near[0]}?" if near else f": there are {', '.join(known)}")


def _said(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"][:1]))
    if problem["type"] in ("missing", "missing_argument"):
        return f"{name} is missing"
    return f"{name} is {problem['input']!r:.80}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
