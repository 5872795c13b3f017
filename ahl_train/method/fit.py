"""From a split to a trained base: features, HADG, CDL."""

from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import numpy as np
import torch
from rich.progress import Progress

from ahl_train import memory
from ahl_train.config import TrainConfig
from ahl_train.data.readers import Sample
from ahl_train.data.split import Split
from ahl_train.features import FeatureStore, Item
from ahl_train.features.maps import Features
from ahl_train.heads.base import NORMAL, PSEUDO, SEEN, Base
from ahl_train.method import copying, hadg
from ahl_train.method.cdl import CDL, Groups, Task
from ahl_train.method.prepared import Rows
from ahl_train.rng import Stream, generator
from ahl_train.run import Fold, RunFolder

_FIT_AT_MOST = 1_200  # normals that fit a density: more take memory and don't improve the covariance


def learn(
    base: Base,
    config: TrainConfig,
    dealt: Split,
    store: FeatureStore,
    ahl: bool,
    folder: RunFolder | None = None,
    progress: Progress | None = None,
    without: Collection[int] = (),
    after_epoch: Callable[[Base], None] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Fold, ...]:
    """Fit the base's densities, then its heads: by AHL, or directly on all samples. Without a folder nothing is saved.

    The heads learn on the device of the store's extractor; afterwards the base is on the CPU.

    ``without``: indices of train normals that the base must not see, not even as donors of pseudo anomalies.

    ``after_epoch`` gets a copy of the base, as it would be if that epoch were the last. It may change the copy.

    Returns each train normal's score from a fit without it, fold by fold, if the run calibrates on them; () for a base
    that holds none out.
    """
    cdl, rng, held_out = begin(base, config, dealt, store, ahl, progress, without, report)
    balanced = _balanced(cdl.tasks, rng)
    schedule = cdl.schedule
    if folder and (state := folder.load("checkpoint.pt")):
        cdl.load_state_dict(state)
    task = progress.add_task("epochs", total=schedule.epochs, completed=cdl.epoch) if progress else None
    while cdl.epoch < schedule.epochs and any(p.requires_grad for p in base.parameters()):
        started = perf_counter()
        log = cdl.run_epoch()
        if folder:
            folder.log({**asdict(log), "seconds": round(perf_counter() - started, 3)})
            folder.save("checkpoint.pt", cdl.state_dict())
        if after_epoch:
            after_epoch(_finish(deepcopy(base), store, balanced))
        if progress and task is not None:
            progress.update(task, advance=1, description=f"epochs, query loss {log.query_loss:.3f}")
    _finish(base, store, balanced)
    return _folds(base, held_out, store) if held_out and config.fold_count else ()


@dataclass(frozen=True)
class _HeldOut:
    """`rows`: of all train normals; `fitted`: indices of those that fitted the base; `prepared`: their features."""

    rows: np.ndarray
    fitted: np.ndarray
    prepared: Features


@torch.inference_mode()
def _folds(base: Base, held_out: _HeldOut, store: FeatureStore) -> tuple[Fold, ...]:
    """Out-of-fold scores. Normals that fitted nothing are dealt to the folds too: no fit has seen them."""
    scores, fold = np.empty(len(held_out.rows)), np.empty(len(held_out.rows), np.int64)
    own = {name: values[: len(held_out.fitted)] for name, values in held_out.prepared.items()}
    scores[held_out.fitted] = base.total(base(own, prepared=True)).numpy()
    rest = np.setdiff1d(np.arange(len(scores)), held_out.fitted)
    for some in np.array_split(rest, len(rest) // 64 + 1):
        scores[some] = base.total(base(store.read(held_out.rows[some], base.inputs))).numpy()
    fold[np.concatenate([held_out.fitted, rest])] = np.arange(len(scores)) % base.folds
    places = [np.flatnonzero(fold == f) for f in range(base.folds)]
    return tuple(Fold(tuple(there.tolist()), tuple(scores[there].tolist())) for there in places)


def begin(
    base: Base,
    config: TrainConfig,
    dealt: Split,
    store: FeatureStore,
    ahl: bool,
    progress: Progress | None = None,
    without: Collection[int] = (),
    report: Callable[[str], None] = lambda line: None,
) -> tuple[CDL, np.random.Generator, _HeldOut | None]:
    """The steps of ``learn`` before its first epoch: features, the base's densities, HADG.

    Also returns the random generator and the normals that the base held out.
    """
    memory.keep()
    rng = generator(config.seed, Stream.DISTRIBUTIONS)
    kept = np.array([i for i in range(len(dealt.train_normal)) if i not in without])
    normals, seen = [dealt.train_normal[i] for i in kept], list(dealt.train_anomaly)
    donors = _donors(dealt.train_normal, config.seed, kept)
    normal_rows = store.rows([Item(s) for s in normals], progress)
    seen_rows = store.rows([Item(s) for s in seen], progress)
    chosen = rng.permutation(len(normals))[:_FIT_AT_MOST]
    fitted_rows = normal_rows[chosen]
    copies = copying.copies(base, [normals[i] for i in chosen], seen, config.seed, store, progress, _FIT_AT_MOST)
    if copies.seen:
        report("the part has no orientation: turned copies train too")
    if base.folds:
        base.folds = config.folds or base.folds
    held_out = base.fit(store.read(fitted_rows, base.inputs), store.read(seen_rows, base.inputs), copies)
    fitted = None if held_out is None else (np.concatenate([fitted_rows, seen_rows]), held_out)

    vectors = store.means(normal_rows)
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
    tasks = _tasks(distributions, normals, donors, normal_rows, seen_rows, config.seed, store, progress)
    schedule = config.steps
    if not ahl:
        tasks, schedule = [_pooled(tasks)], replace(schedule, inner_steps=0)

    reader = store.reader(base.inputs)
    cdl = CDL(base.to(store.device), tasks, reader, schedule, config.seed, plus=config.importance, fitted=fitted)
    return cdl, rng, _HeldOut(normal_rows, chosen, held_out) if base.folds and held_out else None


def _finish(base: Base, store: FeatureStore, balanced: np.ndarray) -> Base:
    """The base as it scores, on the CPU. Its batch norms get the statistics of the balanced rows."""
    features = store.read(balanced, base.inputs)
    base.fit_norms({name: values.to(store.device) for name, values in features.items()})
    return base.eval().cpu()


def _learns_from(base: Base, group: int) -> bool:
    return any(groups[group] for groups in base.trains_on)


def _donors(normals: Sequence[Sample], seed: int, kept: np.ndarray) -> list[Sample]:
    """The donor of each kept normal. There is one each, so that distributions share its pseudo anomalies.

    A donor does not depend on which other normals are left out. If the donor itself is left out, the next one in the
    permutation's cycle replaces it. So folds share nearly all of their pseudo anomalies.
    """
    donors, there = generator(seed, Stream.DONORS).permutation(len(normals)), set(kept.tolist())

    def donor(i: int) -> int:
        found = int(donors[i])
        while found not in there:  # the cycle comes back to i, which is kept
            found = int(donors[found])
        return found

    return [normals[donor(i)] for i in kept]


def _tasks(
    distributions: Sequence[hadg.Distribution],
    normals: Sequence[Sample],
    donors: Sequence[Sample],
    normal_rows: np.ndarray,
    seen_rows: np.ndarray,
    seed: int,
    store: FeatureStore,
    progress: Progress | None,
) -> list[Task]:
    """Distributions as rows of the store. Makes and extracts all pseudo anomalies at once."""
    wanted = {
        (int(i), d.augmentation): Item(normals[i], d.augmentation, donors[i], seed)
        for d in distributions
        for i in np.concatenate([d.support.pseudo, d.query.pseudo])
    }
    rows = dict(zip(wanted, store.rows(list(wanted.values()), progress), strict=True))

    def groups(subset: hadg.Subset, augmentation: str | None) -> Groups:
        pseudo = np.array([rows[int(i), augmentation] for i in subset.pseudo], np.int64)
        return normal_rows[subset.normal], seen_rows[subset.seen], pseudo

    return [Task(groups(d.support, d.augmentation), groups(d.query, d.augmentation)) for d in distributions]


def _pooled(tasks: Sequence[Task]) -> Task:
    """One task with all samples, for training a base model alone."""

    def every(group: int) -> Rows:
        return np.unique(np.concatenate([s[group] for t in tasks for s in (t.support, t.query)]))

    everything = every(NORMAL), every(SEEN), every(PSEUDO)
    return Task(everything, everything)


def _balanced(tasks: Sequence[Task], rng: np.random.Generator, each: int = 32) -> np.ndarray:
    """Rows of a batch with equal shares of the groups."""
    return np.concatenate([rng.permutation(group)[:each] for group in _pooled(tasks).support])
