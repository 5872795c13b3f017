"""A watched folder: each complete file becomes a frame exactly once, even across restarts."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ahl_runtime.core.decode import SUFFIXES, decode
from ahl_runtime.core.errors import Busy, EngineError, ImageError, StoreError
from ahl_runtime.core.types import Frame
from ahl_runtime.line.queues import PendingFrame, StoredDecision
from ahl_runtime.line.settings import Policy, Seconds
from ahl_runtime.line.sources.base import Give, Lost, Report, Stopped, cropped
from ahl_runtime.line.sources.kinds import SourceKind
from ahl_runtime.line.sources.settings import SourceSettings
from ahl_runtime.line.store.journal import Journal

log = logging.getLogger(__name__)


class FolderSource(SourceSettings):
    """`every`: seconds between scans. `settle`: seconds without a change before a file counts as complete.

    `done`: what to do with a file after its decision; `move` needs `move_to`, a folder on the same file system.
    """

    kind: Literal["folder"]
    policy: Policy = "block"
    path: Path
    every: Seconds = 0.2
    settle: Annotated[float, Field(ge=0, le=3600)] = 0.5
    done: Literal["keep", "delete", "move"] = "keep"
    move_to: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.done == "move") != (self.move_to is not None):
            raise ValueError("done = 'move' and move_to belong together: give both, or neither")
        if self.max_fps is not None:
            raise ValueError("max_fps is not allowed for a folder: it would skip files")
        return self


def moved(settings: FolderSource, path: Path, key: str) -> Path:
    """The path to move a file to after its decision; its modification time makes the name unique."""
    folder = settings.move_to or settings.path
    return folder / f"{key.rsplit('|', 1)[1]}-{path.name}"


class Folder:
    """Scans the folder every few moments, without file notifications, so that network folders work.

    A file is complete when its size and modification time have not changed for `settle` seconds. A file that is renamed
    into the folder is complete at once if it was written that long ago. Hidden files, other suffixes and subfolders
    are ignored.
    """

    def __init__(self, settings: FolderSource, store: Path) -> None:
        self._settings, self._store = settings, store
        self._seen: dict[str, str] = {}  # name to key: files with an outcome
        self._young: dict[str, tuple[str, float]] = {}  # name to key, and since when the file is unchanged
        self._waiting: dict[str, tuple[str, Future[StoredDecision]]] = {}
        self._known: set[str] | None = None  # keys in the store

    def run(self, give: Give, report: Report, stopped: Stopped, lost: Lost) -> None:
        """Scan the folder until stopped."""
        while True:
            try:
                if self._known is None:
                    with Journal(self._store, create=True) as journal:
                        self._known = journal.files(self._settings.name)
                self._scan(give, self._known, stopped)
                report("live", f"watching {self._settings.path}")
            except OSError as error:
                report("gone", f"{self._settings.path}: {error.strerror or error}: mount or make this folder")
            except StoreError as error:
                report("waiting", str(error))
            if stopped(self._settings.every):
                self._finish()
                return

    def _scan(self, give: Give, known: set[str], stopped: Stopped) -> None:
        self._finish()
        now, there = time.monotonic(), {}
        with os.scandir(self._settings.path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in SUFFIXES:
                    continue
                try:
                    if entry.is_file():
                        state = entry.stat()
                        there[entry.name] = (f"{entry.name}|{state.st_size}|{state.st_mtime_ns}", state.st_mtime)
                except FileNotFoundError:
                    continue  # deleted meanwhile
        self._forget(there, known)
        for name, (key, changed) in sorted(there.items(), key=lambda item: (item[1][1], item[0])):
            if self._seen.get(name) == key or name in self._waiting:
                continue
            if key in known:  # the process may have been killed before it put the file away
                self._seen[name] = key
                self._put_away(name, key)
            elif self._settled(name, key, changed, now):
                if stopped(0.0):
                    return
                self._hand_on(name, key, give)

    def _settled(self, name: str, key: str, changed: float, now: float) -> bool:
        standing = self._young.get(name)
        if standing is None or standing[0] != key:
            # The file's clock may differ from ours: a modification time in the future counts as now.
            age = time.time() - changed
            since = now - min(max(age, 0.0), self._settings.settle) if standing is None else now
            self._young[name] = (key, since)
            return now - since >= self._settings.settle
        return now - standing[1] >= self._settings.settle

    def _hand_on(self, name: str, key: str, give: Give) -> None:
        path = self._settings.path / name
        frame, error, body = None, "", b""
        try:
            body = path.read_bytes()
            frame = Frame(cropped(decode(body), self._settings.roi), id=name, source=self._settings.name)
        except ImageError as wrong:
            error = str(wrong).replace("the image:", f"{name}:", 1)
        except OSError as wrong:
            if not path.exists():
                return
            error = f"{name}: cannot be read ({wrong.strerror or wrong})"
        pending = PendingFrame(frame, self._settings.name, name, error, key, path, body)
        if give(pending):
            self._young.pop(name, None)
            self._waiting[name] = (key, pending.outcome)

    def _finish(self) -> None:
        """Put away files with an outcome; files that were not stored are tried again."""
        for name, (key, outcome) in list(self._waiting.items()):
            if not outcome.done():
                continue
            del self._waiting[name]
            error = Busy("the line stopped") if outcome.cancelled() else outcome.exception()
            if error is None or isinstance(error, StoreError | ImageError | EngineError):
                self._seen[name] = key
                if self._known is not None:
                    self._known.add(key)
                self._put_away(name, key)
            elif self._settings.policy == "drop-oldest":
                self._seen[name] = key  # dropped and counted; scored after a restart

    def _put_away(self, name: str, key: str) -> None:
        path = self._settings.path / name
        try:
            if self._settings.done == "delete":
                path.unlink(missing_ok=True)
            elif self._settings.done == "move":
                target = moved(self._settings, path, key)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        except OSError as error:
            log.warning("a file could not be deleted or moved", extra={"frame": name, "error": str(error)})

    def _forget(self, there: dict[str, tuple[str, float]], known: set[str]) -> None:
        """Forget files that are no longer in the folder: their names may come again."""
        for table in (self._seen, self._young):
            for name in [name for name in table if name not in there]:
                del table[name]
        keys = {key for key, _ in there.values()} | {key for key, _ in self._waiting.values()}
        gone = known - keys
        if gone:
            with Journal(self._store, create=True) as journal:
                journal.forget_files(self._settings.name, sorted(gone))
            known -= gone


FOLDER = SourceKind(FolderSource, Folder, "path")
