"""AITEX: strips of fabric, 256 px high and mostly 4,096 px long, cut into squares of 256 px."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ahl_train.data.masks import read_mask
from ahl_train.data.samples import GOOD, Dataset, Sample, image_files, need_normals, subfolders
from ahl_train.errors import DataError

LICENCE = "none stated; to be cited (Silvestre-Blanes et al., 2019)"
SIDE = 256
CLASSES = {  # the code in the middle of a name such as 0001_002_00.png
    2: "broken_end",
    6: "broken_yarn",
    10: "broken_pick",
    16: "weft_curling",
    19: "fuzzyball",
    22: "cut_selvage",
    23: "crease",
    25: "warp_ball",
    27: "knots",
    29: "contamination",
    30: "nep",
    36: "weft_crack",
}


def read(root: Path) -> Dataset:
    """Squares of defect-free strips are normal. In a strip with defects, the squares that its mask marks are anomalies.

    root: holds NODefect_images/<fabric>/, Defect_images/ and Mask_images/. The clean squares of a strip with
    defects are left out, as in the released preparation. Strips without a mask are left out too (noted).
    """
    normal_root = root / "NODefect_images"
    strips = [f for folder in [normal_root, *subfolders(normal_root)] for f in image_files(folder)]
    samples = [Sample(f, 0, GOOD, crop=box) for f in strips for box in _squares(f)]
    notes = []
    for strip in image_files(root / "Defect_images"):
        masks = {m: read_mask(m) for m in _mask_files(root / "Mask_images", strip.stem)}
        marked = [s for box in _squares(strip) for s in _marked(strip, box, masks)]
        if not marked:
            notes.append(f"{strip.name} is left out: its mask is {'empty' if masks else 'missing'}")
        samples += marked
    return Dataset("aitex", need_normals("aitex", root, samples), root, LICENCE, tuple(notes))


def _squares(strip: Path) -> list[tuple[int, int, int, int]]:
    """Boxes from left to right; the last is narrower if the length is not a multiple of the side."""
    with Image.open(strip) as image:
        width, height = image.size
    return [(left, 0, min(left + SIDE, width), height) for left in range(0, width, SIDE)]


def _mask_files(folder: Path, stem: str) -> list[Path]:
    """The strip's mask files. Two strips have two files, _mask1 and _mask2."""
    return sorted(folder.glob(f"{stem}_mask*.png"))


def _marked(strip: Path, box: tuple[int, int, int, int], masks: dict[Path, NDArray[np.bool_]]) -> list[Sample]:
    """The square as an anomaly, with the mask file that marks most of it; empty if no mask marks it."""
    left, top, right, bottom = box
    area = {path: int(mask[top:bottom, left:right].sum()) for path, mask in masks.items()}
    path = max(area, key=area.__getitem__, default=None)
    if path is None or area[path] == 0:
        return []
    try:
        kind = CLASSES[int(strip.stem.split("_")[1])]
    except (IndexError, ValueError, KeyError):
        raise DataError(
            f"aitex: {strip} has no known defect code: expected a name like 0001_002_00.png, with a code of "
            f"{', '.join(f'{c:03}' for c in CLASSES)}"
        ) from None
    return [Sample(strip, 1, kind, path, crop=box)]
