"""Any folder in MVTec AD layout: train/good, test/good, test/<defect>, ground_truth/<defect>/*_mask.png."""

from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, Sample, image_files, need_normals, subfolders
from ahl_train.errors import DataError


def read(root: Path, *, name: str | None = None, licence: str = "the owner's") -> Dataset:
    """Read one category. Only train/good is required; DataError if it is missing or empty."""
    name = name or root.name
    if not root.is_dir():
        raise DataError(f"{name}: no folder {root}")
    train = root / "train" / GOOD
    if not train.is_dir():
        raise DataError(f"{name}: no folder train/{GOOD} in {root}: put the normal images there (docs/how-to/train.md)")
    samples = [Sample(f, 0, GOOD, split="train") for f in image_files(train)]
    for folder in subfolders(root / "test"):
        if folder.name == GOOD:
            samples += [Sample(f, 0, GOOD, split="test") for f in image_files(folder)]
            continue
        masks = _masks(root / "ground_truth" / folder.name)
        samples += [Sample(f, 1, folder.name, masks.get(f.stem), split="test") for f in image_files(folder)]
    return Dataset(name, need_normals(name, train, samples), root, licence)


def _masks(folder: Path) -> dict[str, Path]:
    """Masks by the stem of their image: `000_mask.png` (MVTec AD's) or `000.png`."""
    if not folder.is_dir():
        return {}
    return {f.stem.removesuffix("_mask"): f for f in image_files(folder)}
