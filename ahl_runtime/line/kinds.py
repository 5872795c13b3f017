"""Settings with a field `kind`: the registry gives the model for each kind."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from pydantic import PlainValidator
from pydantic_core import PydanticKnownError, SchemaValidator, core_schema

from ahl_runtime.core.errors import ConfigError
from ahl_runtime.core.plugins import Registry
from ahl_runtime.line.settings import Section


class Kind(Protocol):
    """An entry of the registry."""

    @property
    def settings(self) -> type[Section]:
        """The settings model; it has a field `kind`."""
        ...


def by_kind(registry: Registry[Any]) -> PlainValidator:
    """A validator that picks the settings model by `kind`. Its errors are those of pydantic's tagged unions."""
    return PlainValidator(partial(_validated, registry))


def check_model(settings: object) -> None:
    """TypeError unless `settings` is a subclass of Section with a field `kind`."""
    if not (isinstance(settings, type) and issubclass(settings, Section) and "kind" in settings.model_fields):
        raise TypeError(f"settings is {settings!r}, expected a subclass of Section with a field kind")


def _validated(registry: Registry[Kind], value: object) -> Section:
    if isinstance(value, Section):
        return value
    if not isinstance(value, Mapping):
        raise PydanticKnownError("model_attributes_type")
    if "kind" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in registry:
        known = ", ".join(map(repr, registry))
        raise PydanticKnownError(
            "union_tag_invalid", {"discriminator": "'kind'", "tag": str(kind), "expected_tags": known}
        )
    try:
        model = registry[kind].settings
    except ConfigError as error:
        raise ValueError(str(error)) from error
    union = core_schema.tagged_union_schema({kind: model.__pydantic_core_schema__}, "kind")
    found: Section = SchemaValidator(union).validate_python(value)
    return found
