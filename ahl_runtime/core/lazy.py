"""Lazy public names of a package: a name's module is imported at first use, so that `import` of the package is fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def door(
    package: str, offered: Mapping[str, str], extra: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`. `offered`: the module of each name. `__version__` is added.

    `extra`: the extra of ahl to install if a library is missing. The ImportError names it.
    """

    def find(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version  # here, because its import is slow

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
