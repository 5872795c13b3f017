"""Frames to features in batches. Workers decode ahead; the device computes a batch while the last one is written."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from ahl_train import accelerator, memory
from ahl_train.errors import DataError, RunError
from ahl_train.features.extractor import KEPT, Extractor
from ahl_train.features.items import Item
from ahl_train.features.maps import Features

_AHEAD = 4  # frames that are decoded ahead for each worker
Found = tuple[list[int], Features]  # indices of N of the given frames, and their features, each [N, ...], in RAM


@dataclass(frozen=True)
class Feed:
    """Batch and worker settings for a device."""

    batch: int  # frames that the backbone sees at once
    pixels: int  # in a batch, at most; a larger frame has its own batch
    workers: int  # decoding threads; 0: the extracting thread decodes

    @classmethod
    def of(cls, device: torch.device) -> "Feed":
        """The best known settings for this kind of device."""
        if device.type == "cuda":
            return cls(batch=64, pixels=64 << 20, workers=_workers())
        return cls(batch=4, pixels=8 << 20, workers=0)


def _workers() -> int:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, 8)  # more do not decode faster, because of Python's lock


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
        """Features of decoded frames, each uint8 [H, W, 3] of any size; batch by batch, in the dtypes of ``KEPT``.

        DataError for a frame of another dtype or shape; RunError if one does not fit into the device's memory, or if
        features are not finite.
        """
        computing: list[Callable[[], Found]] = []
        for batch in self._batches(enumerate(frames)):
            # Launch this batch first, then wait for the last one: the GPU computes while the caller writes.
            launched = self._launch(batch)
            yield from (wait() for wait in computing)
            computing = launched
        yield from (wait() for wait in computing)

    def _batches(self, frames: Iterable[tuple[int, Tensor]]) -> Iterator[list[tuple[int, Tensor]]]:
        batch: list[tuple[int, Tensor]] = []
        pixels = 0
        for place, frame in frames:
            if frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
                raise DataError(f"frame {place} is {frame.dtype} {list(frame.shape)}, expected uint8 [H, W, 3]")
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
        kept = {name: value.to(KEPT[name]) for name, value in found.items()}
        finite = torch.stack([value.isfinite().all() for value in kept.values()]).all().to("cpu", non_blocking=True)
        kept = {name: value.to("cpu", non_blocking=True) for name, value in kept.items()}
        copied = torch.cuda.Event() if self._copying else None
        if copied:
            copied.record()
        places = [place for group in groups for place, _ in group]

        def wait() -> Found:
            if copied:
                copied.synchronize()
            if not finite:
                raise RunError(
                    "the backbone gives features that are not finite: "
                    + ("choose --precision float32" if self.half else "use other --backbone-weights")
                )
            return places, kept

        return wait

    def _there(self, frames: list[Tensor]) -> Tensor:
        """Frames of one size as a batch on the device. On a GPU, copy and computation run in parallel."""
        if self._copying is None:
            return torch.stack(frames)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copying):
            batch = torch.stack([frame.to(self.device, non_blocking=True) for frame in frames])
        computing.wait_stream(self._copying)
        batch.record_stream(computing)
        return batch


def _decoded(items: Sequence[Item], workers: int, pinned: bool) -> Iterator[Tensor]:
    """The frames of items, in order. For each worker, at most ``_AHEAD`` frames are decoded ahead.

    ``pinned``: in page-locked memory, from which a GPU copies asynchronously.
    """
    if not workers:
        yield from (_frame(item, pinned) for item in items)
        return
    # Threads, not processes: decoding runs mostly without Python's lock, and passing a frame between processes takes
    # longer than decoding it.
    pool = ThreadPoolExecutor(workers)
    wanted = iter(items)
    ahead = deque(pool.submit(_frame, item, pinned) for item in islice(wanted, workers * _AHEAD))
    try:
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(_frame, item, pinned) for item in islice(wanted, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _frame(item: Item, pinned: bool) -> Tensor:
    pixels = item.pixels()
    frame = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=pinned)
    frame.numpy()[...] = pixels
    return frame
