"""The road of training: images, features, HADG, CDL, g."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from rich.progress import Progress

from ahl_train import hadg
from ahl_train.backbone import BackboneSpec
from ahl_train.cdl import CDL, Groups, Task
from ahl_train.config import TrainConfig
from ahl_train.datasets import Sample
from ahl_train.features import FINE, Extractor, FeatureStore, Item, default_cache
from ahl_train.heads.base import PSEUDO, Base
from ahl_train.images import load, load_dataset, verify
from ahl_train.preprocess import choose_supersample
from ahl_train.protocol import Split, split
from ahl_train.run import Run, RunFolder, load_run
from ahl_train.systems import system

_FIT_AT_MOST = 4_000  # normals that a density is fitted on
_SIZED = 32  # frames looked at to choose the supersampling


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Run:
    """Train g into the run folder ``out``; with ``resume``, go on after its last whole epoch.

    TrainError for anything that the data, the weights, the settings or the folder make impossible.
    """
    folder = RunFolder(out)
    chosen = system(config.system)
    spec = BackboneSpec(config.backbone, config.backbone_weights)
    digest = spec.digest  # before minutes of work: are the weights there?
    started = perf_counter()
    if resume and (out / "run.json").exists():
        folder.require_same(config)
        folder.require_weights(spec)
        dealt, supersample = folder.load_split(), folder.read_json("run.json")["supersample"]
        extractor = Extractor(spec, supersample)
    else:
        dealt, left_out = deal(config)
        for line in left_out:
            report(f"left out, unreadable: {line}")
        if left_out:
            report(f"{len(left_out)} images left out")
        supersample = choose_supersample((load(s).shape[:2] for s in dealt.train_normal[:_SIZED]), FINE)
        extractor = Extractor(spec, supersample)
        folder.create(config, dealt, {"supersample": supersample, "backbone_digest": digest, "left_out": left_out})

    torch.manual_seed(config.seed)
    base = chosen.base(extractor, config.shots)
    with Progress(transient=True) as progress:
        learn(
            base,
            config,
            dealt,
            FeatureStore(cache or default_cache(), extractor),
            chosen.ahl,
            folder,
            progress,
        )
    folder.save("model.pt", base.state_dict())
    folder.log({"event": "finished", "seconds": round(perf_counter() - started, 3)})
    return load_run(out)


def deal(config: TrainConfig) -> tuple[Split, list[str]]:
    """The split of the readable images, and the others with their reason."""
    dataset = load_dataset(config.data)
    readable, unreadable = verify(dataset.samples)
    dealt = split(
        replace(dataset, samples=tuple(readable)),
        setting=config.setting,
        shots=config.shots,
        seed=config.seed,
        seen_class=config.seen_class,
        calibration="auto" if config.calibration is None else config.calibration,
    )
    return dealt, [str(u) for u in unreadable]


def learn(
    base: Base,
    config: TrainConfig,
    dealt: Split,
    store: FeatureStore,
    ahl: bool,
    folder: RunFolder | None = None,
    progress: Progress | None = None,
) -> Base:
    """Fit the base's densities, then its heads: by AHL, or plainly on all samples. Without a folder nothing is kept."""
    rng = np.random.default_rng([config.seed, 3])
    normals, seen = list(dealt.train_normal), list(dealt.train_anomaly)
    normal_rows = store.rows([Item(s) for s in normals], progress)
    seen_rows = store.rows([Item(s) for s in seen], progress)
    fitted_on = store.read(rng.permutation(normal_rows)[:_FIT_AT_MOST], base.inputs)
    base.fit_normals(fitted_on)
    base.fit_seen(fitted_on, store.read(seen_rows, base.inputs))
    del fitted_on

    vectors = store.read(normal_rows, ("coarse",))["coarse"].mean((-2, -1)).numpy()
    distributions = hadg.generate(
        vectors,
        len(seen),
        rng,
        clusters=config.clusters,
        grouping=config.grouping,
        augmentations=config.augmentations if _learns_from(base, PSEUDO) else (),
        overlap=config.overlap,
        pseudo=config.steps.pseudo,
    )
    tasks = _tasks(distributions, normals, normal_rows, seen_rows, config.seed, store, progress)
    schedule = config.steps
    if not ahl:
        tasks, schedule = [_pooled(tasks)], replace(schedule, inner_steps=0)

    def read(rows: np.ndarray) -> dict[str, torch.Tensor]:
        return store.read(rows, base.inputs)

    cdl = CDL(base, tasks, read, schedule, config.seed, plus=config.importance)
    if folder and (state := folder.load("checkpoint.pt")):
        cdl.load_state_dict(state)
    task = progress.add_task("epochs", total=schedule.epochs, completed=cdl.epoch) if progress else None
    while cdl.epoch < schedule.epochs and any(p.requires_grad for p in base.parameters()):
        started = perf_counter()
        log = cdl.run_epoch()
        if folder:
            folder.log({**asdict(log), "seconds": round(perf_counter() - started, 3)})
            folder.save("checkpoint.pt", cdl.state_dict())
        if progress and task is not None:
            progress.update(task, advance=1, description=f"epochs, query loss {log.query_loss:.3f}")
    base.fit_norms(read(_balanced(tasks, rng)))
    return base.eval()


def _learns_from(base: Base, group: int) -> bool:
    return any(groups[group] for groups in base.trains_on)


def _tasks(
    distributions: Sequence[hadg.Distribution],
    normals: Sequence[Sample],
    normal_rows: np.ndarray,
    seen_rows: np.ndarray,
    seed: int,
    store: FeatureStore,
    progress: Progress | None,
) -> list[Task]:
    """Distributions as rows of the store; pseudo anomalies are made and extracted here, all in one go."""
    # A normal has one donor, so that its pseudo anomalies are shared by the distributions.
    donors = np.random.default_rng([seed, 4]).permutation(len(normals))
    wanted = {
        (int(i), d.augmentation): Item(normals[i], d.augmentation, normals[donors[i]], seed)
        for d in distributions
        for i in np.concatenate([d.support.pseudo, d.query.pseudo])
    }
    rows = dict(zip(wanted, store.rows(list(wanted.values()), progress), strict=True))

    def groups(subset: hadg.Subset, augmentation: str | None) -> Groups:
        pseudo = np.array([rows[int(i), augmentation] for i in subset.pseudo], np.int64)
        return normal_rows[subset.normal], seen_rows[subset.seen], pseudo

    return [Task(groups(d.support, d.augmentation), groups(d.query, d.augmentation)) for d in distributions]


def _pooled(tasks: Sequence[Task]) -> Task:
    """One task of all samples: what a base model alone trains on."""
    everything = tuple(np.unique(np.concatenate([s[g] for t in tasks for s in (t.support, t.query)])) for g in range(3))
    return Task(everything, everything)


def _balanced(tasks: Sequence[Task], rng: np.random.Generator, each: int = 32) -> np.ndarray:
    """Rows of a batch with equal shares of the groups."""
    return np.concatenate([rng.permutation(group)[:each] for group in _pooled(tasks).support])
