"""Mastcam: patches of 64 x 64 px and six bands from the Mars rover's camera, typical ones and eleven novel classes."""

from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, Sample, need_normals, subfolders
from ahl_train.errors import DataError

LICENCE = "see the source"


def read(root: Path) -> Dataset:
    """The set's own split: train_typical against test_typical and the classes of test_novel.

    root: holds the unpacked train_typical/, test_typical/ and test_novel/<class>/, all with .npy files. Not read are
    test_novel/all, which repeats frames of the classes, and validation_typical. If a frame is in two classes, both
    samples name the first file, so that a split knows that they are one picture.
    """
    samples = [Sample(f, 0, GOOD, split="train") for f in _arrays(root / "train_typical")]
    samples += [Sample(f, 0, GOOD, split="test") for f in _arrays(root / "test_typical")]
    first: dict[str, Path] = {}
    repeated = 0
    for folder in subfolders(root / "test_novel"):
        if folder.name == "all":
            continue
        for file in _arrays(folder):
            repeated += file.name in first
            samples.append(Sample(first.setdefault(file.name, file), 1, folder.name, split="test"))
    notes = (f"{repeated} frames are in two classes and count twice, as in Table 1",) if repeated else ()
    return Dataset("mastcam", need_normals("mastcam", root, samples), root, LICENCE, notes)


def _arrays(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"mastcam: no folder {folder}: unpack {folder.name}.zip there (docs/reference/data.md)")
    return sorted(f for f in folder.glob("*.npy") if not f.name.startswith("."))
