"""A finished run on its test images: AUROC of the scores, and of the maps' pixels where there are masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import Progress
from sklearn.metrics import roc_auc_score

from ahl_train.errors import DataError
from ahl_train.images import load, load_mask
from ahl_train.run import load_run

_LEVELS = 1 << 20  # to which pixels are rounded, so that memory does not grow with their number


@dataclass(frozen=True)
class Evaluation:
    """Figures of a run; those of pixels are None unless asked for."""

    images: int
    anomalies: int
    auroc: float
    masked: int | None = None  # anomalies that have a mask
    pixel_auroc: float | None = None


def evaluate(run: Path, *, pixel: bool = False) -> Evaluation:
    """Score the test images as the exported model would. RunError without a run, DataError if they cannot tell."""
    finished = load_run(run)
    test = finished.split.test
    labels = [s.label for s in test]
    if len(set(labels)) < 2:
        raise DataError(f"{run}: its test needs normals and anomalies; train on more images")
    masked = sum(s.mask is not None for s in test if s.label)
    if pixel and not masked:
        raise DataError(f"{run}: none of its {sum(labels)} test anomalies has a mask: leave --pixel out (docs/data.md)")
    scores, maps, masks = [], [], []
    with Progress(transient=True) as progress:
        for sample in progress.track(test, description="test images"):
            image = load(sample)
            score, anomaly_map, _ = finished.model.score(torch.from_numpy(image.copy())[None])
            scores.append(score.item())
            if pixel and (sample.label == 0 or sample.mask):
                maps.append(anomaly_map[0].numpy())
                masks.append((sample, image.shape[:2]))
    found = Evaluation(len(test), sum(labels), float(roc_auc_score(labels, scores)))
    if pixel:
        opened = (load_mask(sample, shape) for sample, shape in masks)
        found = replace(found, masked=masked, pixel_auroc=pixel_auroc(maps, opened))
    return found


def pixel_auroc(maps: Sequence[NDArray[np.float32]], masks: Iterable[NDArray[np.bool_]]) -> float:
    """Over all pixels of all masks [H, W], each with its map [h, w] upsampled bilinearly; masks are read one by one."""
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)  # upsampled values stay between
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("the anomaly maps hold numbers that are not finite: train again")
    counts = np.zeros((2, _LEVELS))
    for anomaly_map, mask in zip(maps, masks, strict=True):
        fine = F.interpolate(torch.from_numpy(anomaly_map)[None, None], mask.shape, mode="bilinear")[0, 0].numpy()
        scaled = (fine.astype(np.float64) - low) / max(high - low, np.finfo(np.float32).tiny)
        levels = np.clip(scaled * (_LEVELS - 1), 0, _LEVELS - 1).round().astype(np.int64)
        for label in (0, 1):
            counts[label] += np.bincount(levels[mask == bool(label)], minlength=_LEVELS)
    if not counts.any(axis=1).all():
        raise DataError("the masks mark no pixel, or all of them: pixels need both to be judged")
    label, level = counts.nonzero()
    return float(roc_auc_score(label, level, sample_weight=counts[label, level]))
