"""Readers of the published sets, of plug-ins' sets, and of folders in MVTec AD layout."""

from collections.abc import Callable
from pathlib import Path

from ahl_runtime.core.plugins import Registry
from ahl_train.data.check import Report, Row, check_set
from ahl_train.data.readers import elpv, folder
from ahl_train.data.samples import Dataset, Sample
from ahl_train.errors import DataError, TrainError

__all__ = ["READERS", "Dataset", "Report", "Row", "Sample", "check", "load_dataset"]

Reader = Callable[[Path], Dataset]
_PUBLISHED = ("aitex", "brainmri", "elpv", "headct", "hyperkvasir", "mastcam", "mvtec", "optical", "sdd")
READERS: Registry[Reader] = Registry(
    "ahl.datasets",
    {name: f"{__name__}.{name}:read" for name in _PUBLISHED},
    "a function that takes a folder and returns an ahl_train.data.samples.Dataset",
    callable,
    DataError,
)


def load_dataset(spec: str) -> Dataset:
    """Open a set: `elpv` (its package), `NAME:DIR` (a published set or a plug-in's, in DIR), or a folder in MVTec AD
    layout.

    DataError for an unknown name, a missing folder, a folder without the layout, or a plug-in that fails.
    """
    if spec == "elpv":
        return elpv.read()
    name, colon, directory = spec.partition(":")
    if colon and directory and name in READERS:
        return _read(name, Path(directory).expanduser())
    root = Path(spec).expanduser()
    if spec and root.is_dir():
        return folder.read(root)
    known = ", ".join(READERS)
    raise DataError(f"{spec!r} is neither a folder nor a set: give elpv, a folder, or NAME:DIR with NAME of {known}")


def check(name: str, directory: Path | str | None = None) -> Report:
    """Compare a published set in a folder (None for elpv: its package) with Table 1; see `Report`.

    DataError for an unknown name, or a folder that does not have the set's layout.
    """
    if name not in READERS.built_in:
        raise DataError(f"unknown set {name!r}: choose one of {', '.join(READERS.built_in)}")
    if directory is None:
        if name != "elpv":
            raise DataError(f"{name}: give the folder that holds it (docs/reference/data.md)")
        directory = elpv.package()
    return check_set(name, Path(directory).expanduser(), READERS[name])


def _read(name: str, folder: Path) -> Dataset:
    try:
        found = READERS[name](folder)
    except TrainError:
        raise
    except Exception as error:  # from a plug-in's reader
        raise DataError(
            f"{name}: {folder} cannot be read by {READERS.owner(name)} ({type(error).__name__}: {error}): "
            "check the folder, or update the plug-in"
        ) from error
    if not isinstance(found, Dataset):
        raise DataError(f"{name}: its reader returned {type(found).__name__}, expected ahl_train.data.samples.Dataset")
    return found
