"""Copies that AHL(Density) is fitted with: turned where turned normals look normal, on cells with and without a top."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ahl_train.data.images import load
from ahl_train.data.readers import load_dataset
from ahl_train.features import Extractor, FeatureStore, Item
from ahl_train.features.backbone import BackboneSpec
from ahl_train.features.pseudo_anomalies import TURNS
from ahl_train.heads.density import Density
from ahl_train.method.copying import copies

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells():
    """60 normal cells and two broken ones."""
    elpv = load_dataset("elpv")
    return elpv.normals[::25][:60], elpv.anomalies[:2]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return FeatureStore(tmp_path_factory.mktemp("cache"), Extractor(BackboneSpec()))


@pytest.fixture
def base(store):
    return Density(Extractor(BackboneSpec()).shapes, 2)


def test_cells_have_no_orientation(cells, store, base):
    normals, seen = cells
    made = copies(base, normals, seen, 0, store, None, most=100)
    assert len(made.pasted["pooled"]) == 60
    assert [len(f["pooled"]) for f in made.normals] == [(100 - 60) // 3] * 3  # no more than there is room for
    for features, turn in zip(made.seen, TURNS, strict=True):
        expected = store.read(store.rows([Item(s, turn) for s in seen]), base.inputs)
        assert all(torch.equal(features[name], expected[name]) for name in base.inputs)
    assert copies(base, normals, seen, 0, store, None, most=60).normals == ()


def test_what_lies_one_way_up_is_not_turned(cells, store, base, tmp_path):
    def with_a_top(sample):
        """Its upper third dark."""
        image = np.array(load(sample))
        image[: len(image) // 3] //= 3
        Image.fromarray(image).save(tmp_path / sample.path.name)
        return replace(sample, path=tmp_path / sample.path.name)

    made = copies(base, [*map(with_a_top, cells[0])], [*map(with_a_top, cells[1])], 0, store, None, most=100)
    assert made.normals == made.seen == ()
    assert len(made.pasted["pooled"]) == 60


def test_too_few_normals_cannot_tell(cells, store, base):
    assert copies(base, cells[0][:45], cells[1], 0, store, None, most=100).normals == ()
