"""The device's own calibrations: numbered side files. The newest is active, and none is overwritten.

Their names are BUNDLE.calibrations/SOURCE.ARTEFACT.NUMBER.zip. They are packed like bundles, so that every byte is
checked. A calibration that was rolled back ends in .undone. audit.jsonl has one line for each change.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ahl_runtime.bundle import archive
from ahl_runtime.bundle.archive import Refused
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.core.errors import SideFileError
from ahl_runtime.core.files import write_new
from calibration import Calibration, CalibrationError

FORMAT = 1
DEFAULT = "default"  # sources without their own calibration use that of this source
AUDIT = "audit.jsonl"
_INFO, _CALIBRATION = "side.json", "calibration.npz"
_MAX_BYTES = 64 << 20
_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FILE = re.compile(r"(?P<source>[A-Za-z0-9_-]{1,64})\.(?P<artefact>[A-Za-z0-9_-]+)\.(?P<number>\d{4,})\.(zip|undone)")


class Info(BaseModel):
    """side.json: the bundle, artefact and source of the calibration in the same side file."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, defer_build=True
    )  # most devices have no side file

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    bundle: str
    artefact: str
    source: str
    created: Annotated[AwareDatetime, Field(strict=False)]
    sha256: str


@dataclass(frozen=True, eq=False)
class SideFile:
    """A calibration that was made on the device. `name`: SOURCE.ARTEFACT.NUMBER."""

    name: str
    path: Path
    created: datetime
    calibration: Calibration


@dataclass(frozen=True)
class Change:
    """Who made a change, why, and further facts for the line in the audit file."""

    who: str
    why: str
    facts: dict[str, Any]


class SideFiles:
    """The side files of one bundle. Only `add` and `undo` write."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle.path
        self.digest = bundle.digest
        self.folder = bundle.path.with_name(f"{bundle.path.name}.calibrations")

    def chosen(self, artefact: str, source: str) -> SideFile | None:
        """The calibration for a source: its own, else that of the default source. None: use that of the bundle.

        SideFileError if the calibration is damaged or belongs to another bundle. SideFileError also if only another
        artefact was calibrated, so that thresholds never change silently.
        """
        for name in dict.fromkeys((check_source(source), DEFAULT)):
            if found := self.active(artefact, name):
                return found
            others = sorted({a for s, a, _ in self._files(".zip") if s == name})
            if others:
                raise SideFileError(
                    f"{self.folder}: source {name} was calibrated for {', '.join(others)}, not for {artefact}: "
                    f"choose --engine {others[0]}, calibrate {artefact} too, or use --as-exported"
                )
        return None

    def active(self, artefact: str, source: str) -> SideFile | None:
        """The newest calibration of this source and artefact, or None. SideFileError if it cannot be used."""
        newest = self._newest(artefact, source)
        return self._load(newest, artefact, source) if newest else None

    def listed(self) -> Iterator[tuple[str, str, SideFile | SideFileError]]:
        """Artefact, source, and the active calibration or the reason why it cannot be used."""
        for source, artefact in sorted({(s, a) for s, a, _ in self._files(".zip")}):
            try:
                found = self.active(artefact, source)
            except SideFileError as error:
                yield artefact, source, error
            else:
                if found:
                    yield artefact, source, found

    def add(self, artefact: str, source: str, fitted: Calibration, change: Change) -> SideFile:
        """Activate a calibration and write its audit line. After a SideFileError nothing has changed."""
        fitted = replace(fitted, subject=_subject(self.digest, artefact, check_source(source)))
        number = max((n for s, a, n in self._files() if (s, a) == (source, artefact)), default=0) + 1
        name = f"{source}.{artefact}.{number:04d}"
        if not _FILE.fullmatch(f"{name}.zip"):
            raise SideFileError(f"artefact {artefact!r} cannot be used in a file name")
        path = self.folder / f"{name}.zip"
        body = _saved(fitted)
        info = Info(
            format=FORMAT,
            bundle=self.digest,
            artefact=artefact,
            source=source,
            created=datetime.now(UTC).replace(microsecond=0),
            sha256=hashlib.sha256(body).hexdigest(),
        )
        members = {_INFO: info.model_dump_json(indent=2).encode(), _CALIBRATION: body}
        try:
            self.folder.mkdir(exist_ok=True)
            write_new(path, archive.pack(members))
            try:
                self._audit("calibrate", name, change)
            except BaseException:
                path.unlink()
                raise
        except FileExistsError as error:
            raise SideFileError(f"{path}: another calibration was just written: check it, then try again") from error
        except OSError as error:
            raise self._unwritable(error) from error
        return SideFile(name, path, info.created, fitted)

    def undo(self, artefact: str, source: str, change: Change) -> str:
        """Roll back the newest calibration, even a damaged one, and return its name. SideFileError."""
        newest = self._newest(artefact, check_source(source))
        if newest is None:
            raise SideFileError(f"{self.folder}: source {source} has no calibration for {artefact} to roll back")
        aside = newest.with_suffix(".undone")
        try:
            newest.rename(aside)
            try:
                self._audit("undo", newest.stem, change)
            except BaseException:
                aside.rename(newest)
                raise
        except OSError as error:
            raise self._unwritable(error) from error
        return newest.stem

    def _files(self, suffix: str = "") -> list[tuple[str, str, int]]:
        """Source, artefact and number of each file. `suffix`: only files that end so; "" includes .undone files."""
        try:
            names = [p.name for p in self.folder.iterdir() if p.name.endswith(suffix)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SideFileError(f"{self.folder}: cannot be read ({error.strerror or error})") from error
        matches = [m for name in names if (m := _FILE.fullmatch(name))]
        return [(m["source"], m["artefact"], int(m["number"])) for m in matches]

    def _newest(self, artefact: str, source: str) -> Path | None:
        numbers = [n for s, a, n in self._files(".zip") if (s, a) == (source, artefact)]
        return self.folder / f"{source}.{artefact}.{max(numbers):04d}.zip" if numbers else None

    def _load(self, path: Path, artefact: str, source: str) -> SideFile:
        way_out = "roll it back with calibrate --undo, or use --as-exported"
        try:
            with path.open("rb") as file:
                members = archive.unpack(file, _MAX_BYTES)
            if set(members) != {_INFO, _CALIBRATION}:
                raise Refused(f"it holds {', '.join(members)}: not a side file")
            info = Info.model_validate_json(members[_INFO])
            body = members[_CALIBRATION]
            if hashlib.sha256(body).hexdigest() != info.sha256:
                raise Refused("its calibration was altered (its SHA-256 does not match)")
            if info.bundle != self.digest:
                raise Refused(
                    f"it belongs to bundle {info.bundle[:12]}…, not to {self.bundle.name}, which is {self.digest[:12]}…"
                )
            if (info.artefact, info.source) != (artefact, source):
                raise Refused(f"it was made for source {info.source} and {info.artefact}, and renamed afterwards")
            fitted = Calibration.load(io.BytesIO(body), subject=_subject(self.digest, artefact, source))
        except OSError as error:
            raise SideFileError(f"{path}: cannot be read ({error.strerror or error}): {way_out}") from error
        except ValidationError as error:
            wrong = ", ".join(sorted({".".join(map(str, e["loc"])) or _INFO for e in error.errors()}))
            raise SideFileError(f"{path}: refused: {_INFO} is not as it was written ({wrong}): {way_out}") from error
        except (Refused, CalibrationError) as error:
            raise SideFileError(f"{path}: refused: {error}: {way_out}") from error
        return SideFile(path.stem, path, info.created, fitted)

    def _audit(self, what: str, name: str, change: Change) -> None:
        """Append a line and flush it to the disk. After a line that a power cut left unfinished, begin a new line."""
        line = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": change.who,
            "what": what,
            "why": change.why,
            "calibration": name,
            "bundle": self.digest,
            **change.facts,
        }
        text = json.dumps(line, allow_nan=False).encode() + b"\n"
        with (self.folder / AUDIT).open("a+b") as file:
            if (size := file.seek(0, os.SEEK_END)) and not _ends_a_line(file):
                text = b"\n" + text
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise

    def _unwritable(self, error: OSError) -> SideFileError:
        return SideFileError(
            f"{error.filename or self.folder}: cannot be written ({error.strerror or error}): "
            "check the folder and its free space; nothing has changed"
        )


def check_source(source: str) -> str:
    """Return `source`. SideFileError if it is not a valid source name."""
    if not isinstance(source, str) or not _SOURCE.fullmatch(source):
        raise SideFileError(f"source name {source!r:.80}: expected 1 to 64 letters, digits, '_' and '-'")
    return source


def user() -> str:
    """The user who runs this program: the login name, or the user number if there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _subject(digest: str, artefact: str, source: str) -> str:
    return f"bundle {digest}, {artefact}, source {source}"


def _saved(fitted: Calibration) -> bytes:
    out = io.BytesIO()
    fitted.save(out)
    return out.getvalue()


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
