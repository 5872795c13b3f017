"""Registries: the built-in values of ahl, and those that other installed packages add through entry points."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


class Registry(MutableMapping[str, T], Generic[T]):
    """Values by name: first the built-in values, then those of plug-ins. Each value is imported when it is looked up.

    `group`: the group of the plug-ins' entry points. `built_in`: name to "module:object", as in an entry point.
    `accepts`: is this object a valid value? `expected`: a valid value, described in words. A plug-in that cannot be
    imported, or gives another object, raises `error` when its name is looked up, and at no other time. An unknown name
    raises KeyError.
    """

    def __init__(
        self,
        group: str,
        built_in: Mapping[str, str],
        expected: str,
        accepts: Callable[[object], bool],
        error: type[Exception],
    ) -> None:
        self.group = group
        self.built_in = tuple(built_in)
        self._own = {name: EntryPoint(name, value, group) for name, value in built_in.items()}
        self._expected, self._accepts, self._error = expected, accepts, error
        self._set: dict[str, T] = {}

    @property
    def added(self) -> tuple[str, ...]:
        """The names that plug-ins or this process added."""
        return tuple(name for name in self if name not in self.built_in)

    def __getitem__(self, name: str) -> T:
        if name in self._set:
            return self._set[name]
        points = self._points(name)
        if len(points) > 1:
            claims = " and ".join(_owner(point) for point in points)
            raise self._error(f"{name!r} is defined by {claims}: uninstall one of them")
        return self._loaded(points[0])

    def owner(self, name: str) -> str:
        """Who defines this name, in words: ahl, a plug-in with its version, or this process."""
        return "this process" if name in self._set else _owner(self._points(name)[0])

    def __setitem__(self, name: str, value: T) -> None:
        """Add a value for this process only, without a package."""
        self._set[name] = value

    def __delitem__(self, name: str) -> None:
        """Remove a value that was added for this process."""
        del self._set[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._set or name in self._plugins

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._own, *self._plugins, *self._set)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _points(self, name: str) -> list[EntryPoint]:
        """Where the name is defined: by ahl, or by plug-ins, of which there may be several. KeyError."""
        return [self._own[name]] if name in self._own else self._plugins[name]

    @cached_property
    def _plugins(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if point.name in self._own:
                log.warning("%s is ignored: ahl has its own %r in %s", _owner(point), point.name, self.group)
            else:
                found.setdefault(point.name, []).append(point)
        return found

    def _loaded(self, point: EntryPoint) -> T:
        try:
            value: T = point.load()
        except Exception as error:  # the import of a plug-in can raise anything
            message = " ".join(f"{type(error).__name__}: {error}".split())
            raise self._error(
                f"{point.name!r} of {_owner(point)} cannot be imported ({message}): update or uninstall it"
            ) from error
        if not self._accepts(value):
            raise self._error(
                f"{point.name!r} of {_owner(point)}: {point.value} is of type {type(value).__name__}, "
                f"expected {self._expected}: update or uninstall it"
            )
        return value


def _owner(point: EntryPoint) -> str:
    return f"the plug-in {point.dist.name} {point.dist.version}" if point.dist else "ahl"
