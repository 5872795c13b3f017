"""Checks of scores and settings. Public functions check once, and internal functions do not check again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import ScoresError, SettingsError

FloatArray = NDArray[np.float64]
T = TypeVar("T")

_LEAST = 1e-9  # the smallest rate


def rate(name: str, value: float) -> float:
    """`value` as a float from `_LEAST` to below 1. SettingsError."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SettingsError(f"{name} is {value!r}: expected a number above 0 and below 1") from None
    if not (math.isfinite(number) and 0.0 < number < 1.0):
        raise SettingsError(f"{name} is {number:g}: expected a number above 0 and below 1, such as 0.01")
    if number < _LEAST:
        raise SettingsError(f"{name} is {number:g}: expected {_LEAST:g} or more; no line has so many frames")
    return number


def finite(name: str, values: ArrayLike) -> FloatArray:
    """`values` as float64 of the same shape. ScoresError, unless all are finite real numbers."""
    try:
        raw = np.asarray(values)
    except ValueError as error:
        raise ScoresError(f"{name} have rows of different lengths ({error}): pass one array of numbers") from None
    if raw.dtype.kind not in "fiu" and raw.size:
        raise ScoresError(f"{name} have dtype {raw.dtype}: expected real numbers")
    array: FloatArray = raw.astype(np.float64)
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ScoresError(
            f"{name} hold {int(bad.sum())} NaN or infinite values (first at {list(first)}): "
            "find the frame that gave it; no decision is made on such a score"
        )
    return array


def sample(name: str, values: ArrayLike, least: int = 2) -> FloatArray:
    """`values` as a sorted float64 [n] copy, n >= `least`. ScoresError, unless all are finite real numbers."""
    array = finite(name, values)
    if array.ndim != 1:
        raise ScoresError(f"{name} have shape {list(array.shape)}: expected one score per frame, shape [n]")
    if array.size < least:
        raise ScoresError(f"{name} hold {array.size}: at least {least} are needed; add normal frames")
    return np.sort(array)


def text(name: str, value: object) -> str:
    """`value`, if it is text that UTF-8 can hold. SettingsError."""
    try:
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:
        pass
    raise SettingsError(f"{name} is {value!r:.80}: expected text")


def listed(name: str, values: Iterable[T], expected: str) -> list[T]:
    """`values` as a list. ScoresError, which says what was `expected`, if it is none, or a text."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ScoresError(f"{name} are {values!r:.80}: expected {expected}")
    return list(values)
