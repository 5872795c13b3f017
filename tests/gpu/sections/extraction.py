"""Frames a second from decoded pixels and from files, against batches of one and the CPU; what float16 changes."""

import tempfile
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from common import Ask, Result, bar, decoded, open_extractor, peak, profiled, seconds
from torch import Tensor

from ahl_train.features import Extractor, FeatureStore, Item
from ahl_train.features.extraction import Extraction, Feed
from ahl_train.features.extractor import KEPT
from ahl_train.features.pseudo_anomalies import AUGMENTATIONS

_ALIKE = 1e-3  # of float32 features on two devices, root mean square over the spread
_ALIKE_HALF = 0.03  # of float16 ones


def measure(ask: Ask) -> Result:
    """Figures by name, in frames a second; differences by feature; the ten kernels that take longest."""
    dataset, extractor = open_extractor(ask.data, ask.device)
    frames = decoded(dataset.samples, 8 if ask.small else 2048)
    own, half = Feed.of(ask.device), ask.on_gpu
    found: Result = {"feed": vars(own), "frames": len(frames), "shape": list(frames[0].shape)}
    with peak(ask.device, found):
        rates = _from_pixels(extractor, frames, ask)
    files = _from_files(extractor, [Item(sample) for sample in dataset.samples[: len(frames)]], ask)
    few = frames[: 2 if ask.small else 32]
    expected = _features(Extraction(_copy(extractor)), few)
    differences = {
        name: _differences(_features(Extraction(extractor, half=h), few), expected)
        for name, h in (("float32", False), ("float16", True))
    }
    whole = Extraction(extractor, half=half)
    profile = profiled(ask.device, lambda: list(whole.of_frames(frames[: 4 * own.batch])))
    bars = [
        bar("float32 features, difference", max(differences["float32"].values()), _ALIKE),
        bar("float16 features, difference", max(differences["float16"].values()), _ALIKE_HALF),
    ]
    if ask.on_gpu:
        bars += [
            bar("frames a second from decoded pixels", max(rates["float16"], rates["float32"]), 1000, least=True),
            bar("frames a second from files", files["into the store"], 400, least=True),
            bar("GB of the GPU", found["peak_gb"], 8),
        ]
    return found | {"decoded": rates, "files": files, "differences": differences, "profile": profile, "bars": bars}


def _from_pixels(extractor: Extractor, frames: list[Tensor], ask: Ask) -> dict[str, float]:
    single = Feed(1, Feed.of(ask.device).pixels, 0)
    rates = {
        "float16": _rate(Extraction(extractor, half=True), frames[: 4 if ask.small else None]),
        "float32": _rate(Extraction(extractor), frames),
        "float32, one at a time": _rate(Extraction(extractor, feed=single), frames[:128]),
    }
    if ask.on_gpu:
        torch.backends.cudnn.benchmark = True
        rates["float16, cuDNN's choice by trial"] = _rate(Extraction(extractor, half=True), frames)
        torch.backends.cudnn.benchmark = False
        rates["the CPU beside it, float32"] = _rate(Extraction(_copy(extractor)), frames[:64])
    return rates


def _from_files(extractor: Extractor, items: list[Item], ask: Ask) -> dict[str, float]:
    """Decoded, extracted and written."""
    own, some = Feed.of(ask.device), items[: 8 if ask.small else 256]
    pairs = zip(some, items[1:], cycle(AUGMENTATIONS), strict=False)
    pseudo = [Item(item.sample, name, donor.sample) for item, donor, name in pairs]
    asked = {
        "into the store": (items, own),
        "into the store, decoded by the same thread": (some, replace(own, workers=0)),
        "pseudo anomalies, into the store": (pseudo, own),
    }
    return {name: _files(extractor, wanted, ask.on_gpu, feed) for name, (wanted, feed) in asked.items()}


def _rate(extraction: Extraction, frames: list[Tensor]) -> float:
    """Frames a second, after two batches."""
    list(extraction.of_frames(frames[: 2 * extraction.feed.batch]))
    return round(len(frames) / seconds(extraction.device, lambda: list(extraction.of_frames(frames))), 1)


def _files(extractor: Extractor, items: list[Item], half: bool, feed: Feed) -> float:
    """Items a second, after two batches."""
    with tempfile.TemporaryDirectory() as cache:
        store = FeatureStore(Path(cache), extractor, half=half)
        store._extraction.feed = feed
        first = min(2 * feed.batch, len(items) // 2)
        store.rows(items[:first])
        return round((len(items) - first) / seconds(extractor.device, lambda: store.rows(items[first:])), 1)


def _copy(extractor: Extractor) -> Extractor:
    """On the CPU."""
    return Extractor(extractor.spec, extractor.supersample).eval()


def _features(extraction: Extraction, frames: list[Tensor]) -> dict[str, Tensor]:
    blocks = list(extraction.of_frames(frames))
    order = torch.tensor([place for places, _ in blocks for place in places]).argsort()
    return {name: torch.cat([kept[name].float() for _, kept in blocks])[order] for name in KEPT}


def _differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Any]:
    """Root mean square over the expected ones' spread."""
    return {
        name: float(f"{((found[name] - expected[name]).square().mean().sqrt() / expected[name].std()).item():.2g}")
        for name in expected
    }
