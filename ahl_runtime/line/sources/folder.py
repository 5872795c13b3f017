"""A watched folder: each file that is complete becomes a frame, exactly once, also across restarts."""

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
    """`every`: seconds between looks. `settle`: seconds for which a file must not have changed.

    `done`: what becomes of a file that was decided on; `move` needs `move_to`, on the same file system.
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
            raise ValueError("max_fps would leave files undecided: a folder has none")
        return self


def moved(part: FolderSource, path: Path, key: str) -> Path:
    """Where a file goes that was decided on: its time of change keeps names apart."""
    folder = part.move_to or part.path
    return folder / f"{key.rsplit('|', 1)[1]}-{path.name}"


class Folder:
    """Looks every so often: no notification is relied on, so that network folders work.

    A file is complete when its size and its time of change have stood for `settle` seconds; one that is renamed into
    the folder has stood already, if it was written that long ago. Hidden files and other suffixes are left alone, and
    so are folders inside.
    """

    def __init__(self, part: FolderSource, store: Path) -> None:
        self._part, self._store = part, store
        self._seen: dict[str, str] = {}  # name to key: handed on, or settled
        self._young: dict[str, tuple[str, float]] = {}  # name to key and since when it stands so
        self._waiting: dict[str, tuple[str, Future[StoredDecision]]] = {}
        self._known: set[str] | None = None  # keys in the store

    def run(self, give: Give, report: Report, stopped: Stopped, lost: Lost) -> None:
        """Until stopped."""
        while True:
            try:
                if self._known is None:
                    with Journal(self._store, create=True) as journal:
                        self._known = journal.files(self._part.name)
                self._look(give, self._known, stopped)
                report("live", f"watching {self._part.path}")
            except OSError as error:
                report("gone", f"{self._part.path}: {error.strerror or error}")
            except StoreError as error:
                report("waiting", str(error))
            if stopped(self._part.every):
                self._finish()
                return

    def _look(self, give: Give, known: set[str], stopped: Stopped) -> None:
        self._finish()
        now, there = time.monotonic(), {}
        with os.scandir(self._part.path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in SUFFIXES:
                    continue
                try:
                    if entry.is_file():
                        state = entry.stat()
                        there[entry.name] = (f"{entry.name}|{state.st_size}|{state.st_mtime_ns}", state.st_mtime)
                except FileNotFoundError:
                    continue  # taken away meanwhile
        self._forget(there, known)
        for name, (key, changed) in sorted(there.items(), key=lambda item: (item[1][1], item[0])):
            if self._seen.get(name) == key or name in self._waiting:
                continue
            if key in known:  # decided on, and perhaps killed before it was put away
                self._seen[name] = key
                self._put_away(name, key)
            elif self._settled(name, key, changed, now):
                if stopped(0.0):
                    return
                self._hand_on(name, key, give)

    def _settled(self, name: str, key: str, changed: float, now: float) -> bool:
        standing = self._young.get(name)
        if standing is None or standing[0] != key:
            # A file's age counts only where the clocks agree: one from the future has not stood.
            age = time.time() - changed
            since = now - min(max(age, 0.0), self._part.settle) if standing is None else now
            self._young[name] = (key, since)
            return now - since >= self._part.settle
        return now - standing[1] >= self._part.settle

    def _hand_on(self, name: str, key: str, give: Give) -> None:
        path = self._part.path / name
        frame, error, body = None, "", b""
        try:
            body = path.read_bytes()
            frame = Frame(cropped(decode(body), self._part.roi), id=name, source=self._part.name)
        except ImageError as wrong:
            error = str(wrong).replace("the image:", f"{name}:", 1)
        except OSError as wrong:
            if not path.exists():
                return
            error = f"{name}: cannot be read ({wrong.strerror or wrong})"
        pending = PendingFrame(frame, self._part.name, name, error, key, path, body)
        if give(pending):
            self._young.pop(name, None)
            self._waiting[name] = (key, pending.outcome)

    def _finish(self) -> None:
        """Put away what has its outcome; look again at what was dropped or not stored."""
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
            elif self._part.policy == "drop-oldest":
                self._seen[name] = key  # dropped, and counted; after a restart it is looked at again

    def _put_away(self, name: str, key: str) -> None:
        path = self._part.path / name
        try:
            if self._part.done == "delete":
                path.unlink(missing_ok=True)
            elif self._part.done == "move":
                target = moved(self._part, path, key)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        except OSError as error:
            log.warning("a file could not be put away", extra={"frame": name, "error": str(error)})

    def _forget(self, there: dict[str, tuple[str, float]], known: set[str]) -> None:
        """Names that are gone may come again, and their keys need not be kept."""
        for table in (self._seen, self._young):
            for name in [name for name in table if name not in there]:
                del table[name]
        keys = {key for key, _ in there.values()} | {key for key, _ in self._waiting.values()}
        gone = known - keys
        if gone:
            with Journal(self._store, create=True) as journal:
                journal.forget_files(self._part.name, sorted(gone))
            known -= gone


FOLDER = SourceKind(FolderSource, Folder, "path")
