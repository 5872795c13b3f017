"""The memory-mapped store that holds each frame's features once."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from ahl_train.errors import RunError
from ahl_train.features.extraction import Extraction
from ahl_train.features.extractor import FINE, KEPT, VERSION, Extractor
from ahl_train.features.items import Item
from ahl_train.features.maps import Features

_CHUNK = 512  # rows
_KEY_BYTES = 65  # 64 hex digits and a newline


class FeatureStore:
    """Features by content: (image bytes, crop, weights, size, augmentation, code version) to one record on disk.

    The store only grows. It writes a block of records before their keys, so a kill loses only unfinished blocks. A lock
    lets several processes share it. RunError if the folder cannot be written.

    ``half``: features of a float16 backbone, stored apart from those of a float32 backbone.
    """

    def __init__(self, cache: Path, extractor: Extractor, *, half: bool = False) -> None:
        self._extraction = Extraction(extractor, half=half)
        self.device = extractor.device  # the extractor's; features that are read are in RAM
        space = f"{extractor.spec.name}|{extractor.spec.digest}|{FINE}|{extractor.supersample}|{VERSION}"
        if half:
            space += "|float16"
        self._dir = cache / hashlib.sha256(space.encode()).hexdigest()[:16]
        with self._writing():
            self._dir.mkdir(parents=True, exist_ok=True)
        shapes = extractor.shapes.items()
        self._record = np.dtype([(name, torch.empty(0, dtype=KEPT[name]).numpy().dtype, s) for name, s in shapes])
        self._keys, self._data = self._dir / "keys", self._dir / "records"
        self._known: dict[str, int] = {}

    def rows(self, items: Sequence[Item], progress: Progress | None = None) -> NDArray[np.int64]:
        """The row of each item. Extracts features that are missing."""
        keys = [item.key() for item in items]
        with self._locked():
            self._refresh()
        missing = {k: item for k, item in zip(keys, items, strict=True) if k not in self._known}
        if missing:
            task = progress.add_task("features", total=len(missing)) if progress else None
            wanted = list(missing)
            for places, features in self._extraction.of_items(list(missing.values())):
                self._append([wanted[place] for place in places], features)
                if progress and task is not None:
                    progress.advance(task, len(places))
        return np.array([self._known[k] for k in keys], np.int64)

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> Features:
        """The named features of the rows, float32 [len(rows), ...]; only their pages are read."""
        return {name: self._fill(name, rows, self._room(name, len(rows))).float() for name in names}

    def means(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean vectors of the coarse maps, which HADG clusters: float32 [len(rows), C]."""
        chunks = np.array_split(rows, max(1, len(rows) // _CHUNK))
        return np.concatenate([self.read(chunk, ("coarse",))["coarse"].mean((-2, -1)).numpy() for chunk in chunks])

    def reader(self, names: Sequence[str]) -> Callable[[NDArray[np.int64]], Features]:
        """``read`` for batches, in stored dtypes: maps as half floats. The next call of as many rows overwrites it.

        Asking the system for new memory would take longer than all the rest.
        """
        rooms: dict[tuple[str, int], NDArray[np.generic]] = {}

        def read(rows: NDArray[np.int64]) -> Features:
            for name in names:
                if (name, len(rows)) not in rooms:
                    rooms[name, len(rows)] = self._room(name, len(rows))
            return {name: self._fill(name, rows, rooms[name, len(rows)]) for name in names}

        return read

    def _room(self, name: str, rows: int) -> NDArray[np.generic]:
        """Memory for a field of so many rows."""
        return np.empty((rows, *self._record[name].shape), self._record[name].base)

    def _fill(self, name: str, rows: NDArray[np.int64], room: NDArray[np.generic]) -> Tensor:
        if len(rows):
            # Only known rows: after them there may be an unfinished record, or part of one after a kill.
            field = np.memmap(self._data, self._record, mode="r", shape=(len(self._known),)).view(np.ndarray)[name]
            # One field of one row at a time: indexing whole records would copy all their fields.
            for place, row in zip(room, rows, strict=True):
                place[...] = field[row]
        return torch.from_numpy(room)

    def _append(self, keys: Sequence[str], features: Features) -> None:
        """Write a block of records, except those that another process has written already."""
        with self._locked():
            self._refresh()
            new = [i for i, key in enumerate(keys) if key not in self._known]
            block = np.empty(len(new), self._record)
            for name, values in features.items():
                block[name] = values.numpy()[new]
            row = len(self._known)
            with self._writing():
                _write_at(self._data, row * self._record.itemsize, block.data.cast("B"))
                _write_at(self._keys, row * _KEY_BYTES, "".join(f"{keys[i]}\n" for i in new).encode())
            self._known.update((keys[i], row + n) for n, i in enumerate(new))

    def _refresh(self) -> None:
        """Read the keys of complete records that were added since the last call."""
        if not self._keys.exists():
            return
        complete = min(self._keys.stat().st_size // _KEY_BYTES, self._data.stat().st_size // self._record.itemsize)
        with self._keys.open("rb") as file:
            file.seek(len(self._known) * _KEY_BYTES)
            for row in range(len(self._known), complete):
                self._known[file.read(_KEY_BYTES)[:-1].decode()] = row

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"the feature cache {self._dir} cannot be written ({error.strerror}): "
                "free space, or choose another by --cache or AHL_CACHE"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._dir / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write_at(path: Path, offset: int, data: bytes | memoryview) -> None:
    """Write, and cut off what a killed process left after it."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(offset)
        file.write(data)
        file.truncate()


def default_cache() -> Path:
    """``$AHL_CACHE``, else ``~/.cache/ahl``."""
    return Path(os.environ.get("AHL_CACHE") or "~/.cache/ahl").expanduser() / "features"
