"""The published sets, each read from the layout in which it is published, and folders in MVTec AD layout."""

from collections.abc import Callable
from pathlib import Path

from ahl_train.data.check import Report, Row, check_set
from ahl_train.data.readers import aitex, brainmri, elpv, folder, headct, hyperkvasir, mastcam, mvtec, optical, sdd
from ahl_train.data.samples import Dataset, Sample
from ahl_train.errors import DataError

__all__ = ["READERS", "Dataset", "Report", "Row", "Sample", "check", "load_dataset"]

READERS: dict[str, Callable[[Path], Dataset]] = {
    "aitex": aitex.read,
    "brainmri": brainmri.read,
    "elpv": elpv.read,
    "headct": headct.read,
    "hyperkvasir": hyperkvasir.read,
    "mastcam": mastcam.read,
    "mvtec": mvtec.read,
    "optical": optical.read,
    "sdd": sdd.read,
}


def load_dataset(spec: str) -> Dataset:
    """Open a set: `elpv` (its package), `NAME:DIR` (a published set in DIR), or a folder in MVTec AD layout.

    DataError for a name that is not known, a folder that is not there or not in the layout.
    """
    if spec == "elpv":
        return elpv.read()
    name, colon, directory = spec.partition(":")
    if colon and directory and name in READERS:
        return READERS[name](Path(directory).expanduser())
    root = Path(spec).expanduser()
    if spec and root.is_dir():
        return folder.read(root)
    known = ", ".join(READERS)
    raise DataError(f"no folder {spec!r}, nor a set: give elpv, a folder, or NAME:DIR with NAME of {known}")


def check(name: str, directory: Path | str | None = None) -> Report:
    """Compare a published set in a folder (None for elpv: its package) with Table 1; see `Report`.

    DataError for a name that is not known, or a folder that is not in the set's layout at all.
    """
    if name not in READERS:
        raise DataError(f"unknown set {name!r}: choose one of {', '.join(READERS)}")
    if directory is None:
        if name != "elpv":
            raise DataError(f"{name}: give the folder that holds it (docs/data.md)")
        directory = elpv.package()
    return check_set(name, Path(directory).expanduser(), READERS[name])
