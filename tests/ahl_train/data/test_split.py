"""The settings: counts of Table 1 on ELPV, disjoint groups, test normals that depend on the seed only."""

from pathlib import Path

import pytest

from ahl_train.data.readers import Dataset, Sample, load_dataset
from ahl_train.data.split import split
from ahl_train.errors import DataError

HARD = {"shots": 1, "setting": "hard"}


@pytest.fixture(scope="module")
def elpv():
    return load_dataset("elpv")


def made(train=0, test=0, free=0, **anomalies):
    """A dataset of invented paths: normals of each split, anomalies by class."""
    normals = [("train", train), ("test", test), (None, free)]
    samples = [Sample(Path(f"{s}{i}"), 0, "good", split=s) for s, n in normals for i in range(n)]
    samples += [Sample(Path(f"{k}{i}"), 1, k) for k, n in anomalies.items() for i in range(n)]
    return Dataset("made", tuple(samples), Path("somewhere"))


def paths(samples):
    return {s.path for s in samples}


@pytest.mark.parametrize("shots", [1, 10])
def test_elpv_general_is_table_1(elpv, shots):
    s = split(elpv, shots=shots, seed=0)
    test_normal = [x for x in s.test if x.label == 0]
    assert len(s.train_normal) + len(s.calibration_normal) == 1131
    assert len(s.calibration_normal) == 473
    assert len(test_normal) == 377
    assert len(s.train_anomaly) == shots
    assert len(s.test) == 377 + 715 - shots
    groups = [s.train_normal, s.calibration_normal, s.train_anomaly, s.test]
    assert len(set().union(*map(paths, groups))) == sum(map(len, groups)) == 1508 + 715


@pytest.mark.parametrize(("seen", "other", "count"), [("mono", "poly", 402), ("poly", "mono", 313)])
def test_elpv_hard_tests_the_other_class_only(elpv, seen, other, count):
    s = split(elpv, setting="hard", shots=10, seed=1, seen_class=seen)
    assert {x.kind for x in s.train_anomaly} == {seen}
    tested = [x for x in s.test if x.label == 1]
    assert {x.kind for x in tested} == {other}
    assert len(tested) == count


def test_normals_depend_on_the_seed_only(elpv):
    deals = [
        split(elpv, shots=1, seed=7),
        split(elpv, shots=10, seed=7),
        split(elpv, shots=10, seed=7, setting="hard", seen_class="mono"),
    ]
    for s in deals[1:]:
        assert s.train_normal == deals[0].train_normal
        assert s.calibration_normal == deals[0].calibration_normal
        assert [x for x in s.test if x.label == 0] == [x for x in deals[0].test if x.label == 0]
    without = split(elpv, shots=1, seed=7, calibration=0)
    assert paths(without.test) == paths(deals[0].test)
    assert paths(without.train_normal) == paths(deals[0].train_normal + deals[0].calibration_normal)
    assert deals[0].train_anomaly == deals[1].train_anomaly[:1]
    assert split(elpv, shots=1, seed=7) == deals[0]
    other = split(elpv, shots=1, seed=8)
    assert paths(other.test) != paths(deals[0].test)
    assert other.train_anomaly != deals[0].train_anomaly


def test_the_sets_own_split_is_kept():
    s = split(made(train=9, test=4, hole=3), shots=1, seed=0)
    assert {x.split for x in s.train_normal + s.calibration_normal} == {"train"}
    assert len([x for x in s.test if x.split == "test"]) == 4
    assert (len(s.train_normal), len(s.calibration_normal)) == (6, 3)


def test_normals_on_one_side_only_are_dealt_three_to_one():
    s = split(made(train=20, hole=2), shots=2, seed=0)
    assert len(s.test) == 5
    assert len(s.train_normal) + len(s.calibration_normal) == 15


@pytest.mark.parametrize(
    ("normals", "train", "test"),
    [(98, 73, 25), (100, 75, 25), (2695, 2021, 674), (2256, 1692, 564), (1, 1, 0)],
)
def test_a_quarter_is_rounded_as_in_table_1(normals, train, test):
    s = split(made(free=normals, hole=1), shots=1, seed=3, calibration=0)
    assert (len(s.train_normal), len(s.test)) == (train, test)


def test_calibration_can_be_given():
    s = split(made(train=9, test=2, hole=1), shots=0, seed=0, calibration=8)
    assert (len(s.train_normal), len(s.calibration_normal)) == (1, 8)


@pytest.mark.parametrize(
    ("dataset", "arguments", "says"),
    [
        (made(free=8, hole=3), {"shots": 4}, "4 shots requested, but there are 3 anomalies"),
        (made(free=8, hole=3, cut=9), {**HARD, "shots": 4, "seen_class": "hole"}, "3 anomalies of class"),
        (made(free=8, hole=3), {"shots": -1}, "-1 shots"),
        (made(hole=3), {"shots": 1}, "no normal images"),
        (made(free=8, hole=3), {"shots": 1, "setting": "easy"}, "general or hard"),
        (made(free=8, hole=3, cut=3), {**HARD, "seen_class": "dent"}, "choose one of cut, hole"),
        (made(free=8, hole=3, cut=3), HARD, "choose one of cut, hole"),
        (made(free=8, hole=3), {**HARD, "seen_class": "hole"}, "two anomaly classes"),
        (made(free=8, hole=3), {"shots": 1, "seen_class": "hole"}, "goes with the hard"),
        (made(free=8, hole=3), {"shots": 1, "calibration": 6}, "0 to 5"),
        (made(free=8, hole=3), {"shots": 1, "calibration": "most"}, "'most' calibration normals"),
    ],
)  # fmt: skip
def test_what_cannot_serve_is_said(dataset, arguments, says):
    with pytest.raises(DataError, match=says):
        split(dataset, seed=0, **arguments)
