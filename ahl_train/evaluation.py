"""Evaluates a finished run on its test images: AUROC of scores and, with masks, AUROC and AUPRO of maps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score

from ahl_train.data.images import load, load_mask
from ahl_train.errors import DataError
from ahl_train.progress import progress_bar
from ahl_train.run import Run

FPR_LIMIT = 0.3  # upper limit for AUPRO, as the field reports it
_LEVELS = 1 << 20  # pixels are rounded to so many levels, so that memory does not grow with their number


@dataclass(frozen=True)
class Evaluation:
    """Figures of a run. The pixel figures are None unless requested."""

    images: int
    anomalies: int
    auroc: float
    masked: int | None = None  # anomalies that have a mask
    pixel_auroc: float | None = None
    pixel_aupro: float | None = None


def evaluate(run: Run, *, pixel: bool = False) -> Evaluation:
    """Score the test images as the exported model would. DataError if labels or requested masks are missing."""
    test, where = run.split.test, run.folder
    labels = [s.label for s in test]
    if len(set(labels)) < 2:
        raise DataError(f"{where}: its test needs normals and anomalies; train with fewer --shots, or on more images")
    masked = sum(s.mask is not None for s in test if s.label)
    if pixel and not masked:
        raise DataError(f"{where}: its {sum(labels)} test anomalies have no masks: leave --pixel out")
    scores, maps, masks = [], [], []
    with progress_bar() as progress:
        for sample in progress.track(test, description="test images"):
            image = load(sample)
            score, anomaly_map, _ = run.model.score(torch.from_numpy(image.copy())[None])
            scores.append(score.item())
            if pixel and (sample.label == 0 or sample.mask):
                maps.append(anomaly_map[0].numpy())
                masks.append((sample, image.shape[:2]))
    found = Evaluation(len(test), sum(labels), float(roc_auc_score(labels, scores)))
    if pixel:
        opened = (mask for sample, shape in masks if (mask := load_mask(sample, shape)) is not None)  # all have one
        of_pixels, of_regions = pixels(maps, opened)
        found = replace(found, masked=masked, pixel_auroc=of_pixels, pixel_aupro=of_regions)
    return found


def pixels(maps: Sequence[NDArray[np.float32]], masks: Iterable[NDArray[np.bool_]]) -> tuple[float, float]:
    """AUROC and AUPRO over all pixels of all masks [H, W], each with its map [h, w] upsampled bilinearly.

    AUPRO is the mean overlap with each connected region (8 neighbours) over the false-positive rate, up to FPR_LIMIT
    and divided by it (Bergmann et al. 2021, The MVTec Anomaly Detection Dataset, 5.2). Masks are read one by one.
    """
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)  # upsampled values stay in this range
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("the anomaly maps hold numbers that are not finite: train again")
    good, bad, overlap = np.zeros((3, _LEVELS))  # pixels at each level; a region's pixels share a weight of 1
    regions = 0
    for anomaly_map, mask in zip(maps, masks, strict=True):
        fine = F.interpolate(torch.from_numpy(anomaly_map)[None, None], mask.shape, mode="bilinear")[0, 0].numpy()
        scaled = (fine.astype(np.float64) - low) / max(high - low, np.finfo(np.float32).tiny)
        levels = np.clip(scaled * (_LEVELS - 1), 0, _LEVELS - 1).round().astype(np.int64)
        good += np.bincount(levels[~mask], minlength=_LEVELS)
        bad += np.bincount(levels[mask], minlength=_LEVELS)
        region, found = label(mask, structure=np.ones((3, 3)))
        share = 1 / np.maximum(np.bincount(region.ravel()), 1)
        overlap += np.bincount(levels[mask], share[region[mask]], minlength=_LEVELS)
        regions += found
    if not (good.any() and bad.any()):
        raise DataError("the masks mark no pixel, or all of them: pixel figures need both")
    defect, level = np.stack([good, bad]).nonzero()
    auroc = roc_auc_score(defect, level, sample_weight=np.stack([good, bad])[defect, level])
    return float(auroc), _area(good, overlap / regions)


def _area(good: NDArray[np.float64], overlap: NDArray[np.float64]) -> float:
    """Area under overlap over false-positive rate, for falling thresholds, up to FPR_LIMIT and divided by it."""
    reached = np.flatnonzero(good + overlap)[::-1]
    rate = np.append(0, np.cumsum(good[reached]) / good.sum())
    height = np.append(0, np.cumsum(overlap[reached]))
    at_limit = np.interp(FPR_LIMIT, rate, height)
    inside = rate < FPR_LIMIT
    return float(np.trapezoid(np.append(height[inside], at_limit), np.append(rate[inside], FPR_LIMIT)) / FPR_LIMIT)
