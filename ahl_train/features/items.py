"""Items: the frames whose features are needed, and the key of each in the store."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahl_train.data.images import Sample, load
from ahl_train.errors import DataError
from ahl_train.features.pseudo_anomalies import AUGMENTATIONS, TURNS
from ahl_train.rng import Stream, generator


@dataclass(frozen=True)
class Item:
    """A frame whose features are needed: a sample, unchanged, turned, or changed to a pseudo anomaly with a donor."""

    sample: Sample
    augmentation: str | None = None
    donor: Sample | None = None
    seed: int = 0

    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3]; the same for the same item. DataError if a file cannot be read."""
        image = load(self.sample)
        if self.augmentation in TURNS:
            return np.ascontiguousarray(TURNS[self.augmentation](image))
        if self.augmentation is None or self.donor is None:
            return image
        rng = generator(self.seed, Stream.PSEUDO_ANOMALY, int(_file_digest(self.sample.path)[:16], 16))
        return AUGMENTATIONS[self.augmentation](image, rng, load(self.donor))[0]

    def key(self) -> str:
        """64 hex digits of everything that determines the pixels: bytes of its files, crops, augmentation and seed."""
        parts = [_file_digest(self.sample.path), str(self.sample.crop)]
        if self.augmentation in TURNS:
            parts += [self.augmentation]
        elif self.augmentation is not None and self.donor is not None:
            parts += [self.augmentation, _file_digest(self.donor.path), str(self.donor.crop), str(self.seed)]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()


_digests: dict[Path, str] = {}


def _file_digest(path: Path) -> str:
    if path not in _digests:
        try:
            _digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): restore it, or leave it out") from error
    return _digests[path]
