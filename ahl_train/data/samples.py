"""The labelled samples that every reader returns, and the steps over folders that readers share."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ahl_train.errors import DataError

GOOD = "good"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, or one patch of an image, with its label."""

    path: Path
    label: int  # 0 normal, 1 anomaly
    kind: str  # "good" or the anomaly class
    mask: Path | None = None  # non-zero where anomalous; of the whole file: `crop` applies to it too
    split: Literal["train", "test"] | None = None  # only if the set itself has a split
    crop: tuple[int, int, int, int] | None = None  # left, top, right, bottom, in pixels


@dataclass(frozen=True)
class Dataset:
    """A set as stored on disk, in a fixed order; `split.split` divides it."""

    name: str
    samples: tuple[Sample, ...]
    root: Path
    licence: str = "the owner's"
    notes: tuple[str, ...] = ()  # what was left out, or is unusual, in these files

    @property
    def normals(self) -> tuple[Sample, ...]:
        return tuple(s for s in self.samples if s.label == 0)

    @property
    def anomalies(self) -> tuple[Sample, ...]:
        return tuple(s for s in self.samples if s.label == 1)

    @property
    def classes(self) -> tuple[str, ...]:
        """The anomaly classes, sorted."""
        return tuple(sorted({s.kind for s in self.samples if s.label == 1}))

    def counts(self) -> dict[str, int]:
        """Samples per class, `good` included."""
        return dict(sorted(Counter(s.kind for s in self.samples).items()))

    def own_test_normals(self) -> tuple[Sample, ...]:
        """The test normals of the set's own split; empty unless it has normals on both sides."""
        test = tuple(s for s in self.normals if s.split == "test")
        return test if len(test) < len(self.normals) else ()


def quarter(normals: int) -> int:
    """The number of test normals in a 3:1 split: the nearest to a quarter, which gives Table 1's counts."""
    return (normals + 2) // 4


def image_files(folder: Path) -> list[Path]:
    """Image files directly in a folder, by suffix, sorted by name; DataError if there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: check the path and the layout (docs/reference/data.md)")
    return sorted(
        f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()
    )


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, hidden ones left out, sorted by name."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def locate(name: str, root: Path, places: Iterable[str], wanted: str) -> Path:
    """The first of `places` under root that holds `wanted`; DataError if none does."""
    for place in places:
        if (root / place / wanted).exists():
            return root / place
    raise DataError(f"{name}: no {wanted} in {root}: give the folder that holds it (docs/reference/data.md)")


def need_normals(name: str, root: Path, samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The samples as a tuple; DataError if none of them is normal."""
    found = tuple(samples)
    if not any(s.label == 0 for s in found):
        raise DataError(f"{name}: no normal images under {root}: docs/reference/data.md describes the layouts")
    return found
