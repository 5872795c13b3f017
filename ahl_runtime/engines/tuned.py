"""The fastest session options for a bundle on this device. `ahl-runtime bench --tune` writes BUNDLE.tune.json."""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.core import machine
from ahl_runtime.core.errors import OutputError
from ahl_runtime.core.files import write_whole
from ahl_runtime.engines.base import MOST_THREADS, cores

FORMAT = 1
_MAX_BYTES = 1 << 20
_LOGGER = logging.getLogger(__name__)


class SessionOptions(BaseModel):
    """How ONNX Runtime runs on the CPU. The options change its speed. Scores change by rounding errors at most.

    `threads`: threads within an operator, None for every core of this process. `spinning`: threads spin while they
    wait for work. `arena`: freed memory is kept for the next frame. `optimisation`: the level for the graph when it is
    loaded; "all" adds the blocked memory layout to "extended".
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    spinning: bool = False
    arena: bool = True
    optimisation: Literal["basic", "extended", "all"] = "all"


class Tuned(BaseModel):
    """The content of the file. `bundle`: digest of the measured bundle. `device`: `device()` when it was measured."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    bundle: str
    device: str
    created: Annotated[AwareDatetime, Field(strict=False)]
    engines: dict[str, SessionOptions]


def device() -> str:
    """The conditions for which tuned options are valid: CPU, cores of this process, version of ONNX Runtime."""
    return f"{machine.cpu()}, {cores(None)} cores, onnxruntime {version('onnxruntime')}"


def path_of(bundle: Path) -> Path:
    """The file of a bundle's tuned options, in the bundle's folder."""
    return bundle.with_name(f"{bundle.name}.tune.json")


def options(bundle: Bundle, engine: str) -> SessionOptions:
    """The tuned options of this device, or the defaults if it was not tuned.

    A file that is damaged, or belongs to another bundle or device, is ignored with a warning in the log.
    """
    path = path_of(bundle.path)
    try:
        with path.open("rb") as file:
            found = Tuned.model_validate_json(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return SessionOptions()
    except OSError as error:
        return _ignored(path, f"it cannot be read ({error.strerror or error})")
    except ValidationError as error:
        first = error.errors()[0]
        return _ignored(path, f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}")
    if found.bundle != bundle.digest:
        return _ignored(path, "it belongs to another bundle")
    if found.device != device():
        return _ignored(path, f"it was made on {found.device}, this is {device()}")
    return found.engines.get(engine, SessionOptions())


def write(bundle: Path, found: Tuned) -> Path:
    """Write the tuned options, whole or not at all, and return the path. OutputError."""
    path = path_of(bundle)
    try:
        write_whole(path, [found.model_dump_json(indent=2).encode() + b"\n"])
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}): check {os.fspath(path.parent)} and its free space"
        ) from error
    return path


def _ignored(path: Path, why: str) -> SessionOptions:
    _LOGGER.warning("%s is ignored: %s: write it again with ahl-runtime bench --tune, or delete it", path, why)
    return SessionOptions()
