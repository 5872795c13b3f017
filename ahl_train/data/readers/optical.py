"""Optical (DAGM 2007): ten classes of artificial textures, with and without a defect, 512 x 512 px."""

from collections.abc import Iterator
from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, Sample, need_normals
from ahl_train.errors import DataError

LICENCE = "see the source; made for research"
CLASSES = tuple(f"Class{i}" for i in range(1, 11))


def read(root: Path) -> Dataset:
    """All normals of the ten textures together; an anomaly's class is its texture; train and test are merged.

    root: holds Class1/ to Class10/ (or Class1/Class1/ and so on, as the archives unpack), each with Train/ and
    Test/, each of these with its images and Label/Labels.txt. The masks are ellipses around the defects.
    """
    samples: list[Sample] = []
    for name in CLASSES:
        folder = root / name / name if (root / name / name).is_dir() else root / name
        for part in ("Train", "Test"):
            if (folder / part).is_dir():
                samples += _read_part(folder / part, name)
    return Dataset("optical", need_normals("optical", root, samples), root, LICENCE)


def _read_part(folder: Path, name: str) -> Iterator[Sample]:
    """Samples of a Labels.txt: a line `1`, then number, label, image, label again, mask (0 if there is none)."""
    table = folder / "Label" / "Labels.txt"
    if not table.is_file():
        raise DataError(f"optical: no {table}: unpack the set again")
    for number, line in enumerate(table.read_text().splitlines()[1:], start=2):
        match line.split():
            case []:
                continue
            case [_, "0", image, _, _]:
                yield Sample(folder / image, 0, GOOD)
            case [_, "1", image, _, mask]:
                yield Sample(folder / image, 1, name, table.parent / mask)
            case _:
                raise DataError(f"{table}, line {number}: expected number, 0 or 1, image, 0 or 1, mask, got {line!r}")
