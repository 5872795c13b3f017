"""MVTec AD: fifteen categories, each in a folder with the category's name."""

from pathlib import Path

from ahl_train.data.readers import folder
from ahl_train.data.samples import GOOD, Dataset, subfolders
from ahl_train.errors import DataError

LICENCE = "CC BY-NC-SA 4.0 (no commercial use)"


def read(root: Path) -> Dataset:
    """Read one category. DataError for the folder of all categories: the paper trains and tests each separately."""
    inside = [f.name for f in subfolders(root) if (f / "train" / GOOD).is_dir()]
    if inside:
        raise DataError(f"mvtec: {root} holds {len(inside)} categories: name one, e.g. mvtec:{root / inside[0]}")
    return folder.read(root, name=f"mvtec/{root.name}", licence=LICENCE)
