"""results.jsonl: one line per finished cell. Lines are appended whole, so an interrupted benchmark can continue."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from ahl_train.data.split import Setting
from ahl_train.errors import RunError

RESULTS = "results.jsonl"
LAST, BEST = "last", "best"  # which AUROC a line has: the last epoch's, or also the best one's
SAME = ("schedule", "epochs", "epoch", "pixel", "backbone", "backbone_digest")  # equal in all results of a folder

_SINCE: dict[str, Any] = {"epoch": "last", "pixel": False}  # fields that older results lack, and their values there
_NEEDED = {"system", "setting", "seen_class", "shots", "seed", "auroc", "seconds", "data", "dataset", "classes", *SAME}

Result = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One training and its test."""

    system: str
    setting: Setting
    seen_class: str | None
    shots: int
    seed: int

    def __str__(self) -> str:
        where = " ".join(filter(None, (self.setting, self.seen_class)))
        return f"{self.system}, {where}, shots {self.shots}, seed {self.seed}"

    @classmethod
    def of(cls, line: Result) -> "Cell":
        """The cell of a result line."""
        return cls(**{f.name: line[f.name] for f in fields(cls)})


def read_results(folder: Path) -> list[Result]:
    """The finished cells, without an incomplete last line. RunError if the file cannot be read."""
    file = folder / RESULTS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"{file} cannot be read ({error.strerror}): make it with ahl benchmark --out {folder}") from None
    return _parse(content, file)


class Results:
    """The open results file: its lines, and a method to append one."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        content = file.read()
        self.lines = _parse(content, path)
        file.truncate(content.rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)

    def require_same(self, made: Result) -> None:
        """RunError if a line was made with other settings: the cells of a table must be comparable."""
        for line in self.lines:
            other = [f"{k}: {line[k]!r} in the folder, {made[k]!r} requested" for k in SAME if line[k] != made[k]]
            if other:
                raise RunError(
                    f"{self.path} holds results of other settings ({'; '.join(other)}): choose another --out"
                )

    def append(self, line: Result) -> None:
        """Append a line and flush it to disk."""
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines.append(line)


@contextmanager
def open_results(folder: Path) -> Iterator[Results]:
    """The folder's results, locked for one benchmark at a time. RunError if they cannot be read or written."""
    file = folder / RESULTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"another benchmark writes to {folder}: wait for it, or choose another --out") from None
            handle.seek(0)
            yield Results(file, handle)
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror}): free space, or choose another --out") from error


def _is_complete(result: Result) -> bool:
    return result.keys() >= _NEEDED and (result["epoch"] != BEST or "auroc_best" in result)


def _parse(content: bytes, file: Path) -> list[Result]:
    lines = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            result = json.loads(line)
            complete = isinstance(result, dict) and _is_complete(result := {**_SINCE, **result})
        except ValueError:
            complete = False
        if not complete:
            raise RunError(f"{file}, line {number} is not a result: delete that line, and its cell runs again")
        lines.append(result)
    return lines
