"""The road of training: images, a split, out-of-fold scores where asked, g."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from rich.progress import Progress

from ahl_train import accelerator, feedback
from ahl_train.backbone import BackboneSpec
from ahl_train.config import TrainConfig
from ahl_train.cross import score_folds
from ahl_train.errors import DataError
from ahl_train.features import Extractor, FeatureStore, default_cache, supersample_for
from ahl_train.images import load_dataset, usable
from ahl_train.learn import learn
from ahl_train.protocol import Split, split
from ahl_train.run import Run, RunFolder, load_run
from ahl_train.systems import system


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    report: Callable[[str], None] = lambda line: None,
) -> Run:
    """Train g into the run folder ``out``; with ``resume``, go on after its last whole epoch.

    ``device``: one of ``accelerator.DEVICES``; ``precision``: of the backbone where features are extracted, one of
    ``accelerator.PRECISIONS``, and the run's own where it is resumed. TrainError for anything that the data, the
    weights, the settings, the device or the folder make impossible.
    """
    there = accelerator.device(device)
    chosen_precision = accelerator.precision(precision, there)
    folder = RunFolder(out)
    chosen = system(config.system)
    spec = BackboneSpec(config.backbone, config.backbone_weights)
    digest = spec.digest  # before minutes of work: are the weights there?
    started = perf_counter()
    if resume and (out / "run.json").exists():
        folder.require_same(config)
        folder.require_weights(spec)
        chosen_precision = folder.require_precision(precision)
        dealt, supersample = folder.load_split(), folder.read_json("run.json")["supersample"]
        extractor = Extractor(spec, supersample)
    else:
        dealt, left_out = deal(config)
        for line in left_out:
            report(f"left out: {line}")
        if left_out:
            report(f"{len(left_out)} images left out")
        marked = None
        if config.feedback:
            dealt, marked = feedback.add(dealt, config.feedback)
            for line in marked["left_out"]:
                report(f"left out of the feedback: {line}")
            report(f"feedback: {marked['good']} normals and {marked['anomaly']} anomalies more to train on")
        _require_normals(config, dealt)
        supersample = supersample_for(dealt.train_normal)
        extractor = Extractor(spec, supersample)
        extra = {
            "supersample": supersample,
            "backbone_digest": digest,
            "left_out": left_out,
            "device": str(there),
            "precision": chosen_precision,
        }
        folder.create(config, dealt, {**extra, **({"feedback": marked} if marked else {})})

    store = FeatureStore(cache or default_cache(), extractor.to(there), half=chosen_precision == "float16")
    with Progress(transient=True) as progress:
        if config.calibrate == "cross":
            score_folds(config, dealt, extractor, store, folder, progress)
        torch.manual_seed(config.seed)
        base = chosen.base(extractor, len(dealt.train_anomaly))
        learn(base, config, dealt, store, chosen.ahl, folder, progress)
    folder.save("model.pt", base.state_dict())
    folder.log({"event": "finished", "seconds": round(perf_counter() - started, 3)})
    return load_run(out)


def deal(config: TrainConfig) -> tuple[Split, list[str]]:
    """The split of the images, and those left out with their reason: what cannot be read, and copies of others."""
    dataset, left_out = usable(load_dataset(config.data))
    dealt = split(
        dataset,
        setting=config.setting,
        shots=config.shots,
        seed=config.seed,
        seen_class=config.seen_class,
        calibration="auto" if config.held_out is None else config.held_out,
    )
    if config.fold_count > len(dealt.train_normal):
        raise DataError(
            f"{dataset.name}: {config.fold_count} folds asked of {len(dealt.train_normal)} train normals: "
            "ask for fewer --folds, or add normal images"
        )
    return dealt, left_out


def _require_normals(config: TrainConfig, dealt: Split) -> None:
    """DataError for fewer train normals than the system needs, before a folder is made."""
    chosen, there = system(config.system), len(dealt.train_normal)
    fold = -(-there // config.fold_count) if config.fold_count else 0
    if there - fold < chosen.least:
        tested = sum(s.label == 0 for s in dealt.test)
        apart = f"{len(dealt.calibration_normal)} calibrate and {tested} test"
        raise DataError(
            f"{chosen.title} needs {chosen.least} train normals at least, there are {there - fold}"
            f"{f', without one of {config.fold_count} folds' if fold else ''}; {apart}: add images of good parts"
        )
