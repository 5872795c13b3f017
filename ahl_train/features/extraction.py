"""Frames to features in batches: workers decode ahead, and the device computes one batch while the last is written."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ahl_train import accelerator, memory
from ahl_train.errors import DataError, RunError
from ahl_train.features.extractor import KEPT, Extractor
from ahl_train.features.items import Item
from ahl_train.heads.base import Features

_EACH = 16  # items, below which one more worker is not worth its start
_AHEAD = 2  # frames that a worker decodes ahead
Found = tuple[list[int], Features]  # indices of N of the given frames, and their features, each [N, ...], in RAM


@dataclass(frozen=True)
class Feed:
    """How a device is fed."""

    batch: int  # frames that the backbone sees at once
    pixels: int  # of all frames of a batch, at most; a larger frame is a batch of its own
    workers: int  # processes that decode, at most; with 0 the extracting process decodes

    @classmethod
    def of(cls, device: torch.device) -> "Feed":
        """The best settings that were found for this kind of device."""
        if device.type == "cuda":
            return cls(batch=64, pixels=64 << 20, workers=_workers())
        return cls(batch=4, pixels=8 << 20, workers=0)


def _workers() -> int:
    return min(len(os.sched_getaffinity(0)), 16) if sys.platform == "linux" else 0  # other systems do not fork


class Extraction:
    """Extracts the features of many frames on the extractor's device.

    ``half``: the backbone computes in float16. The preprocessing and the pooled statistics stay in float32.
    """

    def __init__(self, extractor: Extractor, *, half: bool = False, feed: Feed | None = None) -> None:
        self.extractor, self.half, self.device = extractor.eval(), half, extractor.device
        self.feed = feed or Feed.of(self.device)
        self._copying = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        memory.keep()

    def of_items(self, items: Sequence[Item]) -> Iterator[Found]:
        """Features of items, which workers decode. DataError if one cannot be read; RunError as in ``of_frames``."""
        return self.of_frames(_decoded(items, self.feed.workers, pinned=self._copying is not None))

    def of_frames(self, frames: Iterable[Tensor]) -> Iterator[Found]:
        """Features of decoded frames, each uint8 [H, W, 3], of any sizes, as ``KEPT`` says, batch by batch.

        RunError if a frame does not fit into the device's memory, or if features are not finite.
        """
        computing: list[Callable[[], Found]] = []
        for batch in self._batches(enumerate(frames)):
            # First launch this batch, then wait for the last: a GPU computes while the caller writes.
            launched = self._launch(batch)
            yield from (wait() for wait in computing)
            computing = launched
        yield from (wait() for wait in computing)

    def _batches(self, frames: Iterable[tuple[int, Tensor]]) -> Iterator[list[tuple[int, Tensor]]]:
        batch: list[tuple[int, Tensor]] = []
        pixels = 0
        for place, frame in frames:
            size = frame.shape[0] * frame.shape[1]
            if batch and (len(batch) >= self.feed.batch or pixels + size > self.feed.pixels):
                yield batch
                batch, pixels = [], 0
            batch.append((place, frame))
            pixels += size
        if batch:
            yield batch

    def _launch(self, batch: list[tuple[int, Tensor]]) -> list[Callable[[], Found]]:
        """Start a batch. Each returned function waits for a part of it; there are several if memory was too small."""
        try:
            return [self._compute(batch)]
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise RunError(
                    f"a frame of {list(batch[0][1].shape)} does not fit into the memory of {self.device}: "
                    "free some of it, or choose --device cpu"
                ) from error
        torch.cuda.empty_cache()
        half = len(batch) // 2
        self.feed = replace(self.feed, batch=half)
        return [*self._launch(batch[:half]), *self._launch(batch[half:])]

    @torch.inference_mode()
    def _compute(self, batch: list[tuple[int, Tensor]]) -> Callable[[], Found]:
        by_size: dict[torch.Size, list[tuple[int, Tensor]]] = {}
        for place, frame in batch:
            by_size.setdefault(frame.shape, []).append((place, frame))
        groups = by_size.values()
        with accelerator.ieee():
            scales = [self.extractor.preprocess(self._there([frame for _, frame in group])) for group in groups]
            fine, coarse = (torch.cat(parts) for parts in zip(*scales, strict=True))
            with torch.autocast(self.device.type, torch.float16, enabled=self.half):
                found = self.extractor.of_scales(fine, coarse)
        kept = {name: value.to(KEPT[name]).to("cpu", non_blocking=True) for name, value in found.items()}
        copied = torch.cuda.Event() if self._copying else None
        if copied:
            copied.record()
        places = [place for group in groups for place, _ in group]

        def wait() -> Found:
            if copied:
                copied.synchronize()
            if not all(value.isfinite().all() for value in kept.values()):
                raise RunError(
                    "the backbone gives features that are not finite: "
                    + ("choose --precision float32" if self.half else "use other --backbone-weights")
                )
            return places, kept

        return wait

    def _there(self, frames: list[Tensor]) -> Tensor:
        """Frames of one size as a batch on the device. On a GPU the copy runs beside the computation."""
        if self._copying is None:
            return torch.stack(frames)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copying):
            batch = torch.stack([frame.to(self.device, non_blocking=True) for frame in frames])
        computing.wait_stream(self._copying)
        batch.record_stream(computing)
        return batch


class _Frames(Dataset[Tensor | DataError]):
    """The frames of items. An error is returned, not raised: torch would put the worker's traceback in its message."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: int) -> Tensor | DataError:
        try:
            return torch.from_numpy(self._items[place].pixels().copy())
        except DataError as error:
            return error


def _decoded(items: Sequence[Item], workers: int, pinned: bool) -> Iterator[Tensor]:
    """The frames of items, in their order. ``pinned``: in page-locked memory, from which a GPU copies by itself."""
    frames = _Frames(items)
    workers = min(workers, len(items) // _EACH)
    if workers:
        workers = min(workers, _room_for(frames[0]) // _AHEAD)
    ahead = {"num_workers": workers, "prefetch_factor": _AHEAD} if workers else {}
    found = iter(DataLoader(frames, batch_size=None, pin_memory=pinned, **ahead))
    while True:
        try:
            frame = next(found)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # the system ended a worker: its end or its frame is missed
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise RunError(f"decoding failed ({reason}): free memory, and run it again") from error
        if isinstance(frame, DataError):
            raise frame
        yield frame


def _room_for(frame: Tensor | DataError) -> int:
    """How many such frames fit into half of the shared memory. A container may have 64 MB of it."""
    shared = Path("/dev/shm")
    if isinstance(frame, DataError) or not shared.is_dir():
        return 0
    return shutil.disk_usage(shared).free // (2 * frame.nbytes)
