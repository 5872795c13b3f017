"""The extractor's shapes, and the store: found again, keyed by what matters, whole after a kill, shared."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from ahl_train.data.readers import Sample
from ahl_train.errors import DataError, RunError
from ahl_train.features import Extractor, FeatureStore, Item, default_cache
from ahl_train.features.backbone import BackboneSpec
from ahl_train.features.pseudo_anomalies import AUGMENTATIONS, TURNS

NAMES = ("fine", "coarse", "entry", "before", "middle", "context", "pooled")


@pytest.fixture
def samples(tmp_path):
    """Six small frames of different pixels."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    return [Sample(path, 0, "good") for path in paths]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def items(samples):
    return [Item(s) for s in samples]


def file_of(cache, name):
    (found,) = cache.rglob(name)
    return found


def assert_holds(store, extractor, wanted):
    """Every item's features are those that the extractor gives, as half floats."""
    stored = store.read(store.rows(wanted), NAMES)
    for i, item in enumerate(wanted):
        fresh = extractor(torch.from_numpy(item.pixels().copy())[None])
        for name in NAMES:
            torch.testing.assert_close(stored[name][i], fresh[name][0], atol=1e-3, rtol=1e-3)


# The extractor


def test_a_real_extractors_features():
    """A frame of any shape; the scales and stages of METHOD, Features."""
    extractor = Extractor(BackboneSpec()).eval()
    image = torch.randint(0, 256, (1, 60, 100, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = extractor(image)
        fine, coarse = extractor.preprocess(image)
        middle, before, last = extractor.backbone(fine)
        middle_coarse, before_coarse, last_coarse = extractor.backbone(coarse)
        entry = extractor.backbone.net.blocks[5][0](before)
    shapes = {name: tuple(f.shape) for name, f in features.items()}
    assert shapes == {
        "fine": (1, 320, 14, 14),
        "coarse": (1, 320, 7, 7),
        "entry": (1, 192, 14, 14),
        "before": (1, 112, 28, 28),
        "middle": (1, 40, 14, 14),
        "context": (1, 152, 14, 14),
        "pooled": (1, 336),
    }
    assert shapes == {name: (1, *shape) for name, shape in extractor.shapes.items()}
    torch.testing.assert_close(features["fine"], last)
    torch.testing.assert_close(features["coarse"], last_coarse)
    torch.testing.assert_close(features["entry"], smoothed(entry))
    torch.testing.assert_close(features["before"], smoothed(before))
    torch.testing.assert_close(features["middle"], halved(smoothed(halved(middle))))
    torch.testing.assert_close(features["context"][:, :112], smoothed(before_coarse))
    torch.testing.assert_close(features["context"][:, 112:], halved(smoothed(middle_coarse)))
    inner = before[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(features["pooled"][0, :112], inner.mean((1, 2)))
    torch.testing.assert_close(features["pooled"][0, 224:], inner.amax((1, 2)))


def halved(maps):
    n, c, h, w = maps.shape
    return maps.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def smoothed(maps):
    """Means of 3 x 3, zeros around the map counted."""
    around = torch.nn.functional.pad(maps, (1, 1, 1, 1))
    return around.unfold(2, 3, 1).unfold(3, 3, 1).mean((-2, -1))


@pytest.mark.parametrize(
    ("name", "module", "channels"), [("resnet18", "layer4.0", 512), ("convnext_atto", "stages.3", 320)]
)
def test_the_last_stages_entry_of_other_networks(name, module, channels, monkeypatch):
    """Its first block where it has several one after the other, else all of it. No weights are needed for that."""
    monkeypatch.setattr("ahl_train.features.tokens.load_network", lambda spec: timm.create_model(spec.name))
    extractor = Extractor(BackboneSpec(name)).eval()
    assert extractor.backbone._entry is extractor.backbone.net.get_submodule(module)
    with torch.inference_mode():
        entry = extractor(torch.zeros(1, 60, 60, 3, dtype=torch.uint8))["entry"]
    assert entry.shape == (1, channels, 14, 14)


# Items


@pytest.mark.parametrize("augmentation", [None, *AUGMENTATIONS])
def test_the_same_item_gives_the_same_pixels(samples, augmentation):
    item = Item(samples[0], augmentation, samples[1], seed=3)
    again = Item(samples[0], augmentation, samples[1], seed=3)
    np.testing.assert_array_equal(item.pixels(), again.pixels())
    assert np.array_equal(item.pixels(), Item(samples[0]).pixels()) == (augmentation is None)


def test_a_turned_item_has_its_pixels_turned(samples):
    image = Item(samples[0]).pixels()
    for turn, axes in (("mirrored", 1), ("upside-down", 0), ("half-turned", (0, 1))):
        np.testing.assert_array_equal(Item(samples[0], turn).pixels(), np.flip(image, axes))


def test_another_seed_gives_another_pseudo_anomaly(samples):
    one, other = (Item(samples[0], "cutmix", samples[1], seed).pixels() for seed in (0, 1))
    assert not np.array_equal(one, other)


# The store


@pytest.mark.parametrize("value", [None, ""])
def test_the_cache_is_in_the_users_own_unless_asked_otherwise(value, monkeypatch):
    """Set to nothing is not set: features would land in the folder that one works in."""
    monkeypatch.delenv("AHL_CACHE", raising=False) if value is None else monkeypatch.setenv("AHL_CACHE", value)
    assert default_cache() == Path.home() / ".cache" / "ahl" / "features"


def test_features_are_those_of_the_extractor(samples, cache, toy_extractor):
    extractor = toy_extractor()
    store = FeatureStore(cache, extractor)
    assert_holds(store, extractor, [*items(samples), Item(samples[0], "draem", samples[1])])


def test_a_hit_gives_identical_rows_without_extraction(samples, cache, toy_extractor):
    first = FeatureStore(cache, toy_extractor())
    rows = first.rows(items(samples))
    expected = first.read(rows, NAMES)
    extractor = toy_extractor()
    second = FeatureStore(cache, extractor)
    np.testing.assert_array_equal(second.rows(items(samples)[::-1]), rows[::-1])
    for name, value in second.read(rows, NAMES).items():
        assert torch.equal(value, expected[name])
    assert extractor.seen == 0


def test_an_item_asked_twice_is_extracted_once(samples, cache, toy_extractor):
    extractor = toy_extractor()
    rows = FeatureStore(cache, extractor).rows(items([*samples[:2], *samples[:2]]))
    assert rows.tolist() == [0, 1, 0, 1]
    assert extractor.seen == 2


def test_rows_are_read_in_the_order_asked_and_only_the_named_features(samples, cache, toy_extractor):
    store = FeatureStore(cache, toy_extractor())
    rows = store.rows(items(samples))
    some = store.read(rows[[4, 1, 4]], ("coarse", "pooled"))
    assert set(some) == {"coarse", "pooled"}
    assert torch.equal(some["coarse"], store.read(rows, ("coarse",))["coarse"][[4, 1, 4]])
    assert {f.dtype for f in some.values()} == {torch.float32}
    assert store.read(rows[:0], ("coarse",))["coarse"].shape == (0, 3, 7, 7)


def test_means_are_those_of_the_coarse_maps_chunk_by_chunk(samples, cache, toy_extractor, monkeypatch):
    store = FeatureStore(cache, toy_extractor())
    rows = store.rows(items(samples))
    monkeypatch.setattr("ahl_train.features.store._CHUNK", 2)
    wanted = store.read(rows[::-1].copy(), ("coarse",))["coarse"].mean((-2, -1)).numpy()
    np.testing.assert_array_equal(store.means(rows[::-1].copy()), wanted)


def test_content_crop_augmentation_donor_and_seed_change_the_key(samples, cache, toy_extractor):
    a, b, c = samples[:3]
    distinct = [
        Item(a),
        Item(b),
        Item(Sample(a.path, 0, "good", crop=(0, 0, 16, 16))),
        Item(Sample(a.path, 0, "good", crop=(8, 0, 24, 16))),
        *(Item(a, augmentation, b) for augmentation in AUGMENTATIONS),
        *(Item(a, turn) for turn in TURNS),
        Item(a, "cutmix", c),
        Item(a, "cutmix", b, seed=1),
    ]
    assert len(set(FeatureStore(cache, toy_extractor()).rows(distinct))) == len(distinct)


def test_the_same_bytes_elsewhere_share_a_row(samples, cache, tmp_path, toy_extractor):
    copy = tmp_path / "copy.png"
    copy.write_bytes(samples[0].path.read_bytes())
    rows = FeatureStore(cache, toy_extractor()).rows(items([samples[0], Sample(copy, 1, "crack")]))
    assert rows.tolist() == [0, 0]


def test_other_weights_and_another_supersampling_have_their_own_records(samples, cache, toy_extractor):
    for extractor in (toy_extractor("one"), toy_extractor("two"), toy_extractor("one", supersample=2)):
        FeatureStore(cache, extractor).rows(items(samples))
        assert extractor.seen == len(samples)


@pytest.mark.parametrize("file", ["keys", "records"])
@pytest.mark.parametrize("lost", [1, 40, 2000])
def test_a_file_that_a_kill_cut_short_recovers(samples, cache, toy_extractor, file, lost):
    """What is whole is kept, what was lost is extracted again, and all rows are right."""
    FeatureStore(cache, toy_extractor()).rows(items(samples[:4]))
    path = file_of(cache, file)
    with path.open("r+b") as handle:
        handle.truncate(max(0, path.stat().st_size - lost))
    extractor = toy_extractor()
    store = FeatureStore(cache, extractor)
    store.rows(items(samples))
    assert 3 <= extractor.seen <= 6
    assert_holds(store, extractor, items(samples))
    reopened = toy_extractor()
    FeatureStore(cache, reopened).rows(items(samples))
    assert reopened.seen == 0


def test_what_a_kill_left_behind_the_last_record_harms_no_reader(samples, cache, toy_extractor):
    """A record in the making, or half a one: every feature is there, nothing is appended, and reading works."""
    expected = FeatureStore(cache, toy_extractor())
    rows = expected.rows(items(samples))
    with file_of(cache, "records").open("ab") as handle:
        handle.write(b"\x7f" * 1001)
    with file_of(cache, "keys").open("ab") as handle:
        handle.write(b"0123")
    extractor = toy_extractor()
    store = FeatureStore(cache, extractor)
    np.testing.assert_array_equal(store.rows(items(samples)), rows)
    assert torch.equal(store.read(rows, ("fine",))["fine"], expected.read(rows, ("fine",))["fine"])
    assert extractor.seen == 0


def test_a_full_disk_is_an_error_of_one_line_and_leaves_the_store_whole(samples, cache, toy_extractor):
    FeatureStore(cache, toy_extractor()).rows(items(samples[:2]))
    size = file_of(cache, "records").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
    try:
        with pytest.raises(RunError, match=r"feature cache .* cannot be written \(File too large\): free space"):
            FeatureStore(cache, toy_extractor()).rows(items(samples))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    extractor = toy_extractor()
    store = FeatureStore(cache, extractor)
    store.rows(items(samples))
    assert extractor.seen == 4
    assert_holds(store, extractor, items(samples))


def test_a_file_that_went_is_named(samples, cache, toy_extractor):
    samples[1].path.unlink()
    with pytest.raises(DataError, match=r"1\.png cannot be read \(No such file or directory\)"):
        FeatureStore(cache, toy_extractor()).rows(items(samples))


def test_a_cache_that_cannot_be_made_is_named(samples, tmp_path, toy_extractor):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="AHL_CACHE"):
        FeatureStore(tmp_path / "file" / "cache", toy_extractor())


_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import ToyExtractor
from ahl_train.data.readers import Sample
from ahl_train.features import FeatureStore, Item
store = FeatureStore(Path(sys.argv[2]), ToyExtractor())
print("ready", flush=True)
sys.stdin.readline()
for path in sys.argv[3:]:
    row = store.rows([Item(Sample(Path(path), 0, "good"))])
    store.read(row, ("fine",))
"""


def test_two_processes_append_at_once(samples, cache, tmp_path, toy_extractor):
    """Each reads while the other writes; half of what they want is the same. One record per frame is left."""
    rng = np.random.default_rng(1)
    paths = [tmp_path / f"more{i}.png" for i in range(60)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(Path(__file__).parents[1]), str(cache), *map(str, wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for wanted in (paths[:40], paths[:19:-1])
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=60)
        assert process.returncode == 0
    extractor = toy_extractor()
    store = FeatureStore(cache, extractor)
    rows = store.rows(items(Sample(p, 0, "good") for p in paths))
    assert extractor.seen == 0
    assert sorted(rows) == list(range(60))
    assert file_of(cache, "keys").stat().st_size == 60 * 65
    assert_holds(store, extractor, items(Sample(p, 0, "good") for p in paths))
