"""The steps of training: images, a split, out-of-fold scores if requested, g."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch

from ahl_train import accelerator
from ahl_train.config import TrainConfig
from ahl_train.data import feedback
from ahl_train.data.images import load_dataset, usable
from ahl_train.data.readers import Dataset
from ahl_train.data.split import Split, split
from ahl_train.errors import DataError
from ahl_train.features import Extractor, FeatureStore, default_cache, supersample_for
from ahl_train.features.backbone import BackboneSpec
from ahl_train.method import hadg
from ahl_train.method.cross import score_folds
from ahl_train.method.fit import learn
from ahl_train.progress import progress_bar
from ahl_train.rng import Stream, integer
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
    """Train g into the run folder ``out``; with ``resume``, continue after its last complete epoch.

    ``device``: one of ``accelerator.DEVICES``. ``precision``: the backbone's during feature extraction, one of
    ``accelerator.PRECISIONS``; a resumed run keeps its own. TrainError if the data, the weights, the settings, the
    device or the folder make training impossible.
    """
    there = accelerator.device(device)
    chosen_precision = accelerator.precision(precision, there)
    folder = RunFolder(out)
    chosen = system(config.system)
    spec = BackboneSpec(config.backbone, config.backbone_weights)
    digest = spec.digest  # fails here, before minutes of work, if the weights are missing
    started = perf_counter()
    if resume and (out / "run.json").exists():
        config = folder.require_same(config)
        folder.require_weights(spec)
        chosen_precision = folder.require_precision(precision)
        dealt, supersample = folder.load_split(), folder.read_json("run.json")["supersample"]
        extractor = Extractor(spec, supersample)
    else:
        config, dealt, left_out = deal(config, report)
        marked = None
        if config.feedback:
            dealt, marked = feedback.add(dealt, config.feedback)
            for line in marked["left_out"]:
                report(f"left out of the feedback: {line}")
            report(f"feedback: {marked['good']} normals and {marked['anomaly']} anomalies added to training")
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
        report(_groups(config, dealt))
        if dealt.train_anomaly and not any(s.label for s in dealt.test):
            report("all anomalies train and none remains for the test, which ahl evaluate needs: ask for fewer --shots")

    store = FeatureStore(cache or default_cache(), extractor.to(there), half=chosen_precision == "float16")
    with progress_bar() as progress:
        if config.calibrate == "cross" and not chosen.folds:
            score_folds(config, dealt, extractor, store, folder, progress)
        torch.manual_seed(integer(config.seed, Stream.WEIGHTS))
        base = chosen.base(extractor, len(dealt.train_anomaly))
        own = learn(base, config, dealt, store, chosen.ahl, folder, progress, report=report)
    for k, fold in enumerate(own):
        folder.save_fold(k, fold)
    folder.save("model.pt", base.state_dict())
    folder.log({"event": "finished", "seconds": round(perf_counter() - started, 3)})
    return load_run(out)


def deal(
    config: TrainConfig, report: Callable[[str], None] = lambda line: None
) -> tuple[TrainConfig, Split, list[str]]:
    """The settled settings, the split, and a line for each image left out; the lines are reported too."""
    dataset, left_out = usable(load_dataset(config.data))
    for line in left_out:
        report(f"left out: {line}")
    if left_out:
        report(f"{len(left_out)} images left out")
    return *split_of(dataset, config), left_out


def split_of(dataset: Dataset, config: TrainConfig) -> tuple[TrainConfig, Split]:
    """The settings as settled for the dataset, and the split. DataError."""

    def dealt(held_out: int | None) -> Split:
        return split(
            dataset,
            setting=config.setting,
            shots=config.shots,
            seed=config.seed,
            seen_class=config.seen_class,
            calibration="auto" if held_out is None else held_out,
        )

    whole = dealt(0)
    settled = config.settled(len(whole.train_normal))
    # If there are fewer normals than the system needs at all, `_require_normals` raises the better error.
    if settled.fold_count > len(whole.train_normal) >= system(config.system).least:
        raise DataError(
            f"{dataset.name}: {settled.fold_count} folds requested for {len(whole.train_normal)} train normals: "
            "ask for fewer --folds, or add normal images"
        )
    return settled, dealt(settled.held_out)


def _groups(config: TrainConfig, dealt: Split) -> str:
    """One line: how many images train, calibrate and test."""
    normals, held_out = len(dealt.train_normal), len(dealt.calibration_normal)
    calibrate = f"and calibrate in {config.fold_count} folds" if config.fold_count else f"and {held_out} calibrate"
    tested = sum(s.label for s in dealt.test)
    return (
        f"{normals} normals train {calibrate}, {len(dealt.test) - tested} test; "
        f"{len(dealt.train_anomaly)} anomalies train, {tested} test"
    )


def _require_normals(config: TrainConfig, dealt: Split) -> None:
    """Before a folder is created: DataError, or ConfigError, for fewer train normals than the settings need."""
    chosen, there = system(config.system), len(dealt.train_normal)
    if there < chosen.least:
        tested = sum(s.label == 0 for s in dealt.test)
        raise DataError(
            f"{chosen.title} needs at least {chosen.least} train normals, there are {there}; "
            f"{len(dealt.calibration_normal)} calibrate and {tested} test: add images of good parts"
        )
    if chosen.ahl:
        hadg.check_clusters(config.clusters, there)
