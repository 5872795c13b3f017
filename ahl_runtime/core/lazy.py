"""Names that a package offers at its front door: each is loaded when it is first asked for, so that doors are light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def door(
    package: str, offered: Mapping[str, str], extra: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`. `offered`: the module of each name; `__version__` is there as well.

    `extra`: what to install where a library is missing: the ImportError says so.
    """

    def find(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version  # here: it takes longer than all the rest of a door

            return version("ahl")
        if name not in offered:
            raise AttributeError(f"module {package!r} has no attribute {name!r}: it has {', '.join(sorted(offered))}")
        try:
            return getattr(import_module(offered[name]), name)
        except ModuleNotFoundError as error:
            if not extra:
                raise
            raise ImportError(f"{package}.{name} needs the extra [{extra}]: pip install 'ahl[{extra}]'") from error

    return find, lambda: sorted([*offered, "__version__"])
