"""A dataset: one folder, in which the name of an image says what it shows, such as good_01.png or crack_07.png."""

from __future__ import annotations

from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, Sample, image_files, need_normals


def read(root: Path) -> Dataset:
    """DataError without the folder, or without normal images."""
    kinds = [(file, file.stem.rpartition("_")[0]) for file in image_files(root)]
    samples = [Sample(file, int(kind != GOOD), kind) for file, kind in kinds]
    return Dataset(root.name, need_normals("flat", root, samples), root)
