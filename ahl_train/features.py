"""Frames to features: the extractor, and the memory-mapped store where each frame's features are kept once."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from ahl_train.augment import AUGMENTATIONS
from ahl_train.backbone import Backbone, BackboneSpec
from ahl_train.errors import RunError
from ahl_train.heads.base import Features
from ahl_train.heads.layers import pool_statistics
from ahl_train.images import Sample, load
from ahl_train.preprocess import Preprocess

VERSION = 2  # raise it when the numbers that this file, preprocess.py or augment.py give would change
FINE = 448  # px, the paper's larger scale; the coarse one is half of it
_CHUNK = 512  # rows
_KEY_BYTES = 65  # 64 hex digits and a newline


class Extractor(nn.Module):
    """The part of the graph before the heads: preprocessing and the frozen backbone at both scales."""

    def __init__(self, spec: BackboneSpec, supersample: int = 1) -> None:
        super().__init__()
        self.backbone = Backbone(spec, stages=(-3, -2, -1))
        self.preprocess = Preprocess(FINE, self.backbone.mean, self.backbone.std, supersample)
        self.middle_channels, self.before_channels, self.channels = self.backbone.channels
        self.spec, self.supersample = spec, supersample

    def forward(self, image: Tensor) -> Features:
        """uint8 [N, H, W, 3] to float32 features of the last stage, C channels, and of the two before, D and E.

        ``fine`` [N, C, 14, 14] and ``coarse`` [N, C, 7, 7]: the last stage at 448 and 224 px (METHOD, Features).
        ``middle`` [N, E, 14, 14]: the last but two at 448 px, mean-pooled by 4. ``pooled`` [N, 3 D]: statistics of the
        last but one at 224 px.
        """
        fine, coarse = self.preprocess(image)
        middle, _, last_fine = self.backbone(fine)
        _, before, last_coarse = self.backbone(coarse)
        return {
            "fine": last_fine,
            "coarse": last_coarse,
            "middle": F.avg_pool2d(middle, 4),
            "pooled": pool_statistics(before),
        }


@dataclass(frozen=True)
class Item:
    """A frame whose features are wanted: a sample as it is, or made a pseudo anomaly with a donor's help."""

    sample: Sample
    augmentation: str | None = None
    donor: Sample | None = None
    seed: int = 0

    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3]; the same for the same item."""
        image = load(self.sample)
        if self.augmentation is None or self.donor is None:
            return image
        seed = [self.seed, int(_file_digest(self.sample.path)[:16], 16)]
        return AUGMENTATIONS[self.augmentation](image, np.random.default_rng(seed), load(self.donor))[0]


class FeatureStore:
    """Features by content: (image bytes, crop, weights, size, augmentation, code version) to one record on disk.

    Append-only: a record is written before its key, so that a kill at any moment loses at most the record in the
    making; a lock lets several processes share it. RunError where the folder cannot be written.
    """

    def __init__(self, cache: Path, extractor: Extractor) -> None:
        self._extractor = extractor.eval()
        held = next(extractor.buffers(), None)
        self.device = (
            held.device if held is not None else torch.device("cpu")
        )  # the extractor's; what is read lies in RAM
        space = f"{extractor.spec.name}|{extractor.spec.digest}|{FINE}|{extractor.supersample}|{VERSION}"
        self._dir = cache / hashlib.sha256(space.encode()).hexdigest()[:16]
        with self._writing():
            self._dir.mkdir(parents=True, exist_ok=True)
        c, d, e = extractor.channels, extractor.before_channels, extractor.middle_channels
        self._record = np.dtype(
            [
                ("fine", "f2", (c, 14, 14)),
                ("coarse", "f2", (c, 7, 7)),
                ("middle", "f2", (e, 14, 14)),
                ("pooled", "f4", (3 * d,)),
            ]
        )
        self._keys, self._data = self._dir / "keys", self._dir / "records"
        self._known: dict[str, int] = {}

    def rows(self, items: Sequence[Item], progress: Progress | None = None) -> NDArray[np.int64]:
        """The row of each item, extracting what is not there yet."""
        keys = [_key(item) for item in items]
        with self._locked():
            self._refresh()
        missing = {k: item for k, item in zip(keys, items, strict=True) if k not in self._known}
        if missing:
            task = progress.add_task("features", total=len(missing)) if progress else None
            for key, item in missing.items():
                self._append(key, self._extract(item))
                if progress and task is not None:
                    progress.advance(task)
        return np.array([self._known[k] for k in keys], np.int64)

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> Features:
        """The named features of the rows, float32 [len(rows), ...]; only their pages are read."""
        return {name: self._fill(name, rows, *self._room(name, len(rows))) for name in names}

    def means(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean vectors of the coarse maps, where HADG's clusters are: float32 [len(rows), C]."""
        chunks = np.array_split(rows, max(1, len(rows) // _CHUNK))
        return np.concatenate([self.read(chunk, ("coarse",))["coarse"].mean((-2, -1)).numpy() for chunk in chunks])

    def reader(self, names: Sequence[str]) -> Callable[[NDArray[np.int64]], Features]:
        """``read`` for batches: what it gives is written over by its next call for as many rows.

        Asking the system for new memory takes longer than all the rest of it.
        """
        rooms: dict[tuple[str, int], tuple[NDArray[np.generic], Tensor]] = {}

        def read(rows: NDArray[np.int64]) -> Features:
            for name in names:
                if (name, len(rows)) not in rooms:
                    rooms[name, len(rows)] = self._room(name, len(rows))
            return {name: self._fill(name, rows, *rooms[name, len(rows)]) for name in names}

        return read

    def _room(self, name: str, rows: int) -> tuple[NDArray[np.generic], Tensor]:
        """Memory for a field of so many rows, as stored and as given."""
        stored = np.empty((rows, *self._record[name].shape), self._record[name].base)
        return stored, torch.empty(stored.shape)

    def _fill(self, name: str, rows: NDArray[np.int64], stored: NDArray[np.generic], given: Tensor) -> Tensor:
        if len(rows):
            # Of the known rows only: behind them may lie a record in the making, or what a kill left of one.
            field = np.memmap(self._data, self._record, mode="r", shape=(len(self._known),)).view(np.ndarray)[name]
            # One field of one row at a time: indexing whole records would copy all their fields.
            for place, row in zip(stored, rows, strict=True):
                place[...] = field[row]
            given.copy_(torch.from_numpy(stored))
        return given

    @torch.inference_mode()
    def _extract(self, item: Item) -> NDArray[np.void]:
        features = self._extractor(torch.from_numpy(item.pixels().copy())[None].to(self.device))
        record = np.zeros((), self._record)
        for name, value in features.items():
            record[name] = value[0].cpu().numpy()
        return record

    def _append(self, key: str, record: NDArray[np.void]) -> None:
        with self._locked():
            self._refresh()
            if key in self._known:
                return  # another process was first
            row = len(self._known)
            with self._writing():
                _write_at(self._data, row * self._record.itemsize, record.tobytes())
                _write_at(self._keys, row * _KEY_BYTES, f"{key}\n".encode())
            self._known[key] = row

    def _refresh(self) -> None:
        """Read the keys that were added since: those of complete records."""
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
                f"the feature cache {self._dir} cannot be written ({error.strerror}): free space, or set AHL_CACHE"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._dir / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write_at(path: Path, offset: int, data: bytes) -> None:
    """Write and cut off what a killed process left behind it."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(offset)
        file.write(data)
        file.truncate()


def default_cache() -> Path:
    """``$AHL_CACHE``, else ``~/.cache/ahl``."""
    return Path(os.environ.get("AHL_CACHE", "~/.cache/ahl")).expanduser() / "features"


_digests: dict[Path, str] = {}


def _file_digest(path: Path) -> str:
    if path not in _digests:
        _digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return _digests[path]


def _key(item: Item) -> str:
    parts = [_file_digest(item.sample.path), str(item.sample.crop)]
    if item.augmentation is not None and item.donor is not None:
        parts += [item.augmentation, _file_digest(item.donor.path), str(item.donor.crop), str(item.seed)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
