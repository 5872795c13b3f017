"""The settings of `ahl-runtime serve`: read from a TOML file and the environment, and validated together."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ahl_runtime.core.errors import ConfigError
from ahl_runtime.core.plugins import Registry
from ahl_runtime.http.settings import Settings as HttpSettings
from ahl_runtime.line.config import LineConfig
from ahl_runtime.line.settings import LogSettings
from ahl_runtime.line.sinks.kinds import SINKS, SinkKind
from ahl_runtime.line.sources.kinds import SOURCES, SourceKind

PREFIX = "AHL_"
_FILE = "_file"
_KINDS: dict[int | str, Registry[SourceKind] | Registry[SinkKind]] = {"source": SOURCES, "sink": SINKS}


class ServiceConfig(LineConfig):
    """All settings of `ahl-runtime serve`. Flags override the environment, and the environment overrides the file.

    `load` reads one.
    """

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of settings, highest precedence first. A .env file is not read."""
        given = init_settings()
        file = given.pop(_FILE, {})
        return (
            InitSettingsSource(settings_cls, given),
            env_settings,
            InitSettingsSource(settings_cls, file),
        )


def load(path: Path | None, flags: Mapping[str, Any] | None = None) -> ServiceConfig:
    """Read the settings from a file, the environment and `flags`. ConfigError lists every error."""
    fields: dict[str, Any] = {}
    given: dict[str, Any] = dict(flags or {})
    where = str(path) if path else "the settings"
    if path is not None:
        try:
            with path.open("rb") as file:
                fields = tomllib.load(file)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from error
    given[_FILE] = fields
    try:
        return ServiceConfig(**given)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_message(e) for e in error.errors())) from error
    except Exception as error:  # pydantic parses environment values before validation
        raise ConfigError(f"{where}: {error}") from error


def _message(error: Any) -> str:
    """The message of a validation error, with its key and, for an unknown key, the most similar known key."""
    model, shown = _at(error["loc"])
    if error["type"] == "extra_forbidden":
        known = list(model.model_fields) if model else []
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
        return f"{shown}: no such key" + (f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{shown}: missing"
    if error["type"] == "union_tag_invalid":
        return f"{shown}: no kind {error['ctx']['tag']!r}; known: {error['ctx']['expected_tags']}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{shown}: {message}" if shown else message


def _at(loc: tuple[int | str, ...]) -> tuple[type[BaseModel] | None, str]:
    """The settings model that holds the last key of `loc`, and the dotted path of that key in the file."""
    model: type[BaseModel] | None = ServiceConfig
    shown: list[str] = []
    for i, key in enumerate(loc):
        if isinstance(key, int):
            shown[-1] += f"[{key + 1}]"
            continue
        registry = _KINDS.get(loc[0]) if i > 0 and isinstance(loc[i - 1], int) else None
        if registry is not None and key in registry:
            model = registry[key].settings
            continue
        shown.append(key)
        if i + 1 < len(loc) and model is not None and not isinstance(loc[i + 1], int):
            field = model.model_fields.get(key)
            found = [a for a in (get_args(field.annotation) or (field.annotation,)) if _is_model(a)] if field else []
            model = found[0] if found else None
    return model, ".".join(shown)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
