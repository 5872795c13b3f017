"""ELPV: 2,624 electroluminescence images of solar cells, from the package `elpv-dataset`."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, Sample, locate, need_normals
from ahl_train.errors import DataError

_LABELS = {0.0: 0, 1.0: 1}  # by defect probability
LICENCE = "CC BY-NC-SA 4.0 (no commercial use)"


def read(root: Path | None = None) -> Dataset:
    """Cells of defect probability 0 (normal) and 1 (anomaly: mono or poly); other cells are left out.

    root: a folder with `labels.csv` and `images/`, or one that holds it as `data/`, `utils/` or
    `src/elpv_dataset/data/`; None for the installed package.
    """
    places = ("", "data", "utils", "src/elpv_dataset/data")
    folder = package() if root is None else locate("elpv", root, places, "labels.csv")
    samples = list(_cells(folder))
    return Dataset("elpv", need_normals("elpv", folder, samples), folder, LICENCE)


def _cells(folder: Path) -> Iterator[Sample]:
    """The cells whose defect probability has a label, in the order of the file."""
    for number, line in enumerate((folder / "labels.csv").read_text().splitlines(), start=1):
        if not (fields := line.split()):
            continue
        try:
            name, probability, kind = fields[0], float(fields[1]), fields[2]
        except (IndexError, ValueError):
            raise DataError(
                f"{folder / 'labels.csv'}, line {number}: expected path, probability and type, got {line!r}"
            ) from None
        if (label := _LABELS.get(probability)) is not None:
            yield Sample(folder / name, label, kind if label else GOOD)


def package() -> Path:
    """The folder of the installed package that holds labels.csv and images/; DataError if not installed."""
    spec = find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("elpv: the package elpv-dataset is not installed: pip install 'ahl[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"
