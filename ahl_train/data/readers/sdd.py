"""SDD (KolektorSDD): commutators of 500 x about 1,250 px, each image cut into an upper, middle and lower third."""

from itertools import pairwise
from pathlib import Path

from PIL import Image

from ahl_train.data.masks import read_mask
from ahl_train.data.samples import GOOD, Dataset, Sample, image_files, need_normals, subfolders
from ahl_train.errors import DataError

LICENCE = "CC BY-NC-SA 4.0 (no commercial use)"


def read(root: Path) -> Dataset:
    """A third that its mask marks is an anomaly (class defect); any other third is normal.

    root: holds kos01/ to kos50/, each with Part0.jpg, Part0_label.bmp and so on. DataError for an image without
    its label file.
    """
    samples: list[Sample] = []
    for item in subfolders(root):
        for photo in (f for f in image_files(item) if not f.stem.endswith("_label")):
            label = photo.with_name(f"{photo.stem}_label.bmp")
            if not label.is_file():
                raise DataError(f"sdd: {photo} has no {label.name} in its folder: unpack the set again")
            mask = read_mask(label)
            for left, top, right, bottom in _thirds(photo):
                marked = bool(mask[top:bottom, left:right].any())
                box = (left, top, right, bottom)
                samples.append(
                    Sample(photo, 1, "defect", label, crop=box) if marked else Sample(photo, 0, GOOD, crop=box)
                )
    return Dataset("sdd", need_normals("sdd", root, samples), root, LICENCE)


def _thirds(photo: Path) -> list[tuple[int, int, int, int]]:
    with Image.open(photo) as image:
        width, height = image.size
    edges = [height * i // 3 for i in range(4)]
    return [(0, top, width, bottom) for top, bottom in pairwise(edges)]
