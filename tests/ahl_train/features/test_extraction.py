"""Extraction in batches: the features of one frame at a time, decoded by workers, in half precision, within memory."""

import threading
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from PIL import Image

from ahl_train.data.readers import Sample
from ahl_train.errors import DataError, RunError
from ahl_train.features import Extractor, FeatureStore, Item
from ahl_train.features.backbone import BackboneSpec
from ahl_train.features.extraction import Extraction, Feed
from ahl_train.features.extractor import KEPT
from ahl_train.features.pseudo_anomalies import AUGMENTATIONS

SIZES = ((24, 32), (40, 20), (24, 32), (16, 16), (40, 20), (24, 32), (18, 50))  # height, width
FEED = Feed(batch=3, pixels=1 << 20, workers=0)


def frames():
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


@pytest.fixture
def items(tmp_path):
    """Of frames of several sizes, some of them made pseudo anomalies."""
    paths = [tmp_path / f"{i}.png" for i in range(len(SIZES))]
    for path, frame in zip(paths, frames(), strict=True):
        Image.fromarray(frame.numpy()).save(path)
    samples = [Sample(path, 0, "good") for path in paths]
    return [*map(Item, samples), *(Item(samples[0], name, samples[1]) for name in AUGMENTATIONS)]


def one_by_one(extractor, given: Iterable[torch.Tensor]):
    with torch.inference_mode():
        return [extractor(frame[None]) for frame in given]


def gathered(found):
    """Each place's features, from blocks."""
    return {place: {k: v[i] for k, v in kept.items()} for places, kept in found for i, place in enumerate(places)}


def assert_alike(found, expected, **tolerance):
    assert sorted(found) == list(range(len(expected)))
    for place, features in enumerate(expected):
        for name, values in features.items():
            kept = found[place][name]
            assert kept.dtype == KEPT[name]
            torch.testing.assert_close(kept.float(), values[0], **tolerance)


@pytest.mark.parametrize("feed", [FEED, Feed(batch=64, pixels=1 << 20, workers=0), Feed(3, 1000, 0), Feed(64, 1, 0)])
def test_batches_of_mixed_sizes_are_each_frames_own_features(toy_extractor, feed):
    found = list(Extraction(toy_extractor(), feed=feed).of_frames(frames()))
    assert_alike(gathered(found), one_by_one(toy_extractor(), frames()), atol=1e-3, rtol=1e-3)
    assert all(len(places) <= feed.batch for places, _ in found)
    assert all(len(places) == 1 or sum(SIZES[p][0] * SIZES[p][1] for p in places) <= feed.pixels for places, _ in found)


@pytest.mark.slow
def test_the_backbones_features_do_not_depend_on_the_batch():
    extractor = Extractor(BackboneSpec()).eval()
    found = gathered(Extraction(extractor, feed=FEED).of_frames(frames()))
    assert_alike(found, one_by_one(extractor, frames()), atol=2e-3, rtol=2e-3)


@pytest.mark.slow
def test_half_precision_is_near():
    """A backbone in float16 scatters by a hundredth of its features' spread; the statistics behind it stay whole."""
    extractor = Extractor(BackboneSpec()).eval()
    whole, half = (gathered(Extraction(extractor, half=h, feed=FEED).of_frames(frames())) for h in (False, True))
    for name in KEPT:
        a, b = (torch.stack([found[i][name].float() for i in range(len(SIZES))]) for found in (whole, half))
        assert 0 < (a - b).square().mean().sqrt() < 0.03 * a.std()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_decode_what_one_process_does(items, toy_extractor, workers):
    expected = one_by_one(toy_extractor(), (torch.from_numpy(item.pixels().copy()) for item in items))
    found = Extraction(toy_extractor(), feed=Feed(4, 1 << 20, workers)).of_items(items)
    assert_alike(gathered(found), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_cannot_be_read_is_named_in_one_line_and_what_came_before_it_is_kept(
    items, tmp_path, toy_extractor, workers
):
    store = FeatureStore(tmp_path / "cache", toy_extractor())
    store._extraction.feed = Feed(2, 1 << 20, workers)
    items[5].sample.path.write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        store.rows(items)
    assert str(items[5].sample.path) in str(error.value)
    assert "\n" not in str(error.value)
    extractor = toy_extractor()
    FeatureStore(tmp_path / "cache", extractor).rows(items[:2])
    assert extractor.seen == 0


@pytest.mark.parametrize("end", ["error", "closed", "whole"])
def test_no_worker_outlives_its_extraction(items, toy_extractor, end):
    before = set(threading.enumerate())
    if end == "error":
        items[1].sample.path.unlink()
    found = Extraction(toy_extractor(), feed=Feed(1, 1 << 20, 2)).of_items(items)
    kept = None
    try:
        next(found)
        if end == "whole":
            list(found)
        else:
            found.close()
    except DataError as error:
        kept = error  # with its traceback, and so with the frames of the generators
    assert (kept is not None) == (end == "error")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    "frame", [torch.zeros(8, 8, dtype=torch.uint8), torch.zeros(8, 8, 4, dtype=torch.uint8), torch.zeros(8, 8, 3)]
)
def test_what_is_no_frame_is_told(toy_extractor, frame):
    with pytest.raises(DataError, match=r"frame 1 is torch\..*, expected uint8 \[H, W, 3\]"):
        list(Extraction(toy_extractor(), feed=FEED).of_frames([frames()[0], frame]))


def test_a_batch_that_memory_does_not_take_is_halved_from_then_on(toy_extractor):
    class Small(toy_extractor):
        sizes = ()

        def of_scales(self, fine, coarse):
            if len(fine) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.sizes += (len(fine),)
            return super().of_scales(fine, coarse)

    extractor = Small()
    found = gathered(Extraction(extractor, feed=Feed(4, 1 << 20, 0)).of_frames(frames()))
    assert_alike(found, one_by_one(toy_extractor(), frames()), atol=1e-3, rtol=1e-3)
    assert extractor.sizes == (2, 2, 2, 1)


def test_a_frame_that_memory_does_not_take_is_named(toy_extractor):
    class Full(toy_extractor):
        def preprocess(self, image):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RunError, match=r"a frame of \[24, 32, 3\] does not fit .* choose --device cpu"):
        list(Extraction(Full(), feed=FEED).of_frames(frames()))


@pytest.mark.parametrize(("half", "way"), [(True, "--precision float32"), (False, "--backbone-weights")])
def test_features_that_are_not_finite_are_refused(toy_extractor, half, way):
    class Overflown(toy_extractor):
        def of_scales(self, fine, coarse):
            return {**super().of_scales(fine, coarse), "pooled": torch.full((len(fine), 3), torch.inf)}

    with pytest.raises(RunError, match=way):
        list(Extraction(Overflown(), half=half, feed=FEED).of_frames(frames()))


def test_half_and_whole_features_are_kept_apart(items, tmp_path, toy_extractor):
    FeatureStore(tmp_path, toy_extractor()).rows(items)
    extractor = toy_extractor()
    FeatureStore(tmp_path, extractor, half=True).rows(items)
    assert extractor.seen == len(items)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("half", [False, True])
def test_a_gpu_extracts_what_the_cpu_does(items, half, monkeypatch):
    extractor = Extractor(BackboneSpec()).eval()
    expected = one_by_one(extractor, (torch.from_numpy(item.pixels().copy()) for item in items))
    found = gathered(Extraction(extractor.cuda(), half=half, feed=Feed(4, 1 << 20, 2)).of_items(items))
    for name in KEPT:
        a = torch.cat([features[name] for features in expected])
        b = torch.stack([found[i][name].float() for i in range(len(items))])
        assert (a - b).square().mean().sqrt() < (0.03 if half else 1e-3) * a.std()
