"""The paper's settings, general and hard: which samples train, calibrate and test (section A, Table 1)."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ahl_train.data.readers import Dataset, Sample
from ahl_train.data.samples import quarter
from ahl_train.errors import DataError
from ahl_train.rng import Stream, generator

Setting = Literal["general", "hard"]
# With 299 normals the highest score guarantees 1% at 95%. With 473 the second highest does, so that one outlier does
# not set the threshold.
CONFIDENT, MAX_CALIBRATION = 299, 473
_ENOUGH = 600  # train normals; beyond this number, more normals calibrate instead


@dataclass(frozen=True)
class Split:
    """One split of a dataset: four disjoint groups."""

    train_normal: tuple[Sample, ...]
    calibration_normal: tuple[Sample, ...]
    train_anomaly: tuple[Sample, ...]
    test: tuple[Sample, ...]
    setting: Setting
    seen_class: str | None
    shots: int
    seed: int


def split(
    dataset: Dataset,
    *,
    setting: Setting = "general",
    shots: int,
    seed: int,
    seen_class: str | None = None,
    calibration: Literal["auto"] | int = "auto",
) -> Split:
    """Split a dataset.

    Normals: the dataset's own split if it has normals on both sides; else one in four, at random, is tested. The
    test normals depend only on the seed. The calibration normals depend only on the seed and `calibration`. They
    come from the train normals: "auto" takes a third, or all but 600 if that is more, 473 at most.
    Anomalies: `shots` train. "general" draws them from all anomalies and tests the rest. "hard" draws them from
    `seen_class` and tests only the other classes. With one seed, fewer shots are the first of more shots.

    DataError if the dataset does not suffice; the message states how many samples, or which choices, there are.
    """
    if setting not in get_args(Setting):
        raise DataError(f"unknown setting {setting!r}: choose general or hard")
    train, test_normal = _deal_normals(dataset, seed)
    held_out, train = _hold_out(dataset, train, calibration, seed)
    candidates, others = _candidates(dataset, setting, seen_class)
    if not 0 <= shots <= len(candidates):
        of = f" of class {seen_class}" if setting == "hard" else ""
        raise DataError(
            f"{dataset.name}: {shots} shots requested, but there are {len(candidates)} anomalies{of}: "
            f"ask for 0 to {len(candidates)}, or add images"
        )
    drawn = generator(seed, Stream.SHOTS).permutation(len(candidates))
    seen = tuple(candidates[i] for i in drawn[:shots])
    rest = tuple(candidates[i] for i in sorted(drawn[shots:]))
    shown = {(s.path, s.crop) for s in seen}  # a picture in two classes is not tested if it trains
    tested = tuple(s for s in (rest if setting == "general" else others) if (s.path, s.crop) not in shown)
    return Split(train, held_out, seen, test_normal + tested, setting, seen_class, shots, seed)


def held_out_of(normals: int) -> int:
    """How many of so many train normals "auto" holds out for calibration."""
    return min(MAX_CALIBRATION, max(normals // 3, normals - _ENOUGH))


def _deal_normals(dataset: Dataset, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Train and test normals."""
    normals = dataset.normals
    if not normals:
        raise DataError(f"{dataset.name}: no normal images in {dataset.root}: put some there (docs/how-to/train.md)")
    if own := dataset.own_test_normals():
        return tuple(s for s in normals if s.split != "test"), own
    return _draw(normals, quarter(len(normals)), generator(seed, Stream.TEST_NORMALS))[::-1]


def _hold_out(
    dataset: Dataset, train: tuple[Sample, ...], calibration: Literal["auto"] | int, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Calibration normals, and the train normals that remain."""
    count = held_out_of(len(train)) if calibration == "auto" else calibration
    if not isinstance(count, int) or not 0 <= count < len(train):
        raise DataError(
            f"{dataset.name}: {calibration!r} calibration normals requested from {len(train)} train normals: "
            f"ask for 0 to {len(train) - 1}, or for none, or add normal images"
        )
    return _draw(train, count, generator(seed, Stream.CALIBRATION_NORMALS))


def _candidates(
    dataset: Dataset, setting: Setting, seen_class: str | None
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The anomalies that shots are drawn from, and the others."""
    anomalies = dataset.anomalies
    if setting == "general":
        if seen_class is not None:
            raise DataError(f"seen_class {seen_class!r} goes with the hard setting: leave it out, or choose hard")
        return anomalies, ()
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.name}: the hard setting needs two anomaly classes or more, there are "
            f"{len(dataset.classes)}: choose general"
        )
    if seen_class not in dataset.classes:
        raise DataError(
            f"{dataset.name}: unknown seen_class {seen_class!r}: choose one of {', '.join(dataset.classes)}"
        )
    return tuple(s for s in anomalies if s.kind == seen_class), tuple(s for s in anomalies if s.kind != seen_class)


def _draw(
    samples: tuple[Sample, ...], count: int, rng: np.random.Generator
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """`count` samples at random and the remaining ones, each in the dataset's order."""
    drawn = set(rng.permutation(len(samples))[:count].tolist())
    return (
        tuple(s for i, s in enumerate(samples) if i in drawn),
        tuple(s for i, s in enumerate(samples) if i not in drawn),
    )
