"""Cross-calibration for few normals: each trains, and a model trained without it scores it (CV+)."""

from time import perf_counter

import numpy as np
import torch
from rich.progress import Progress

from ahl_train import accelerator, rng
from ahl_train.config import TrainConfig
from ahl_train.data.images import load
from ahl_train.data.split import Split
from ahl_train.features import Extractor, FeatureStore
from ahl_train.method.fit import learn
from ahl_train.rng import Stream
from ahl_train.run import Fold, RunFolder
from ahl_train.systems import system
from ahl_train.unified import Unified


def deal_folds(normals: int, folds: int, seed: int) -> list[tuple[int, ...]]:
    """Indices 0 to ``normals`` - 1, split at random into ``folds`` groups whose sizes differ by at most one."""
    order = rng.generator(seed, Stream.FOLDS).permutation(normals)
    return [tuple(sorted(part.tolist())) for part in np.array_split(order, folds)]


def score_folds(
    config: TrainConfig,
    dealt: Split,
    extractor: Extractor,
    store: FeatureStore,
    folder: RunFolder,
    progress: Progress,
) -> None:
    """Train a model without each fold, and save its scores of that fold's normals. Skips finished folds.

    The model computes the scores from pixels at full precision, not from cached features.
    """
    chosen = system(config.system)
    groups = deal_folds(len(dealt.train_normal), config.fold_count, config.seed)
    for k, fold in enumerate(progress.track(groups, description="folds")):
        if folder.load_fold(k):
            continue
        started, own = perf_counter(), folder.fold(k)
        torch.manual_seed(rng.integer(config.seed, Stream.WEIGHTS))
        base = chosen.base(extractor, len(dealt.train_anomaly))
        learn(base, config, dealt, store, chosen.ahl, own, progress, without=frozenset(fold))
        model = Unified(extractor, base.to(store.device))
        pixels = (torch.from_numpy(load(dealt.train_normal[i]).copy())[None].to(store.device) for i in fold)
        with accelerator.ieee():
            scores = [model.score(p)[0].item() for p in pixels]
        folder.save_fold(k, Fold(fold, tuple(scores)))
        (own.path / "checkpoint.pt").unlink(missing_ok=True)  # large, and no longer needed
        folder.log({"event": "fold", "fold": k, "seconds": round(perf_counter() - started, 3)})
