"""The published sets, each read from the layout in which it is published, and folders in MVTec AD layout."""

from collections.abc import Callable
from pathlib import Path

from ahl_train.datasets import elpv, folder, mvtec
from ahl_train.datasets.base import Dataset, Sample
from ahl_train.errors import DataError

__all__ = ["READERS", "Dataset", "Sample", "load_dataset"]

READERS: dict[str, Callable[[Path], Dataset]] = {
    "elpv": elpv.read,
    "mvtec": mvtec.read,
}


def load_dataset(spec: str) -> Dataset:
    """Open a set: `elpv` (its package), `NAME:DIR` (a published set in DIR), or a folder in MVTec AD layout.

    DataError for a name that is not known, a folder that is not there or not in the layout.
    """
    if spec == "elpv":
        return elpv.read()
    name, colon, directory = spec.partition(":")
    if colon and name in READERS:
        return READERS[name](Path(directory).expanduser())
    root = Path(spec).expanduser()
    if spec and root.is_dir():
        return folder.read(root)
    known = ", ".join(sorted(READERS))
    raise DataError(
        f"no folder {spec}, nor a set of that name: give elpv, a folder, or NAME:DIR with NAME of {known}"
    )
