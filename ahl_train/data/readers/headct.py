"""HeadCT: 200 slices, numbered, half of them with a haemorrhage, labelled in one table."""

import csv
from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, Sample, locate, need_normals
from ahl_train.errors import DataError

LICENCE = "see the source"


def read(root: Path) -> Dataset:
    """root: holds labels.csv (`id, hemorrhage`) and head_ct/000.png to 199.png, or head_ct/head_ct/."""
    table = locate("headct", root, ("",), "labels.csv") / "labels.csv"
    folder = locate("headct", root, ("head_ct/head_ct", "head_ct"), "000.png")
    samples = []
    for number, row in enumerate(list(csv.reader(table.read_text().splitlines()))[1:], start=2):
        try:
            index, label = int(row[0]), {"0": 0, "1": 1}[row[1].strip()]
        except (IndexError, ValueError, KeyError):
            raise DataError(f"{table}, line {number}: expected a number and 0 or 1, got {','.join(row)!r}") from None
        samples.append(Sample(folder / f"{index:03}.png", label, "haemorrhage" if label else GOOD))
    return Dataset("headct", need_normals("headct", root, samples), root, LICENCE)
