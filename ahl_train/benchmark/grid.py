"""The benchmark: a grid of systems, settings, shots and seeds on a dataset. Each finished cell is a result line."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ahl_train import accelerator
from ahl_train.benchmark import rivals
from ahl_train.benchmark.results import BEST, LAST, RESULTS, Cell, Result, open_results
from ahl_train.benchmark.rivals import RIVALS, Rivals
from ahl_train.benchmark.spread import by_processes, by_ray
from ahl_train.config import TrainConfig
from ahl_train.data.images import load, load_dataset, load_mask, verify
from ahl_train.data.readers import Dataset, Sample
from ahl_train.data.split import Setting, Split, split
from ahl_train.errors import ConfigError, DataError, RunError, TrainError
from ahl_train.evaluation import pixels
from ahl_train.features import Extractor, FeatureStore, Item, default_cache, supersample_for
from ahl_train.features.backbone import DEFAULT, BackboneSpec
from ahl_train.features.maps import Features
from ahl_train.heads.base import Base
from ahl_train.method.fit import learn
from ahl_train.progress import progress_bar
from ahl_train.rng import Stream, integer
from ahl_train.systems import DEFAULT_SYSTEM, SYSTEMS, system

_CHUNK = 64  # test samples scored at once
Maps = Callable[[Sequence[Sample]], list[NDArray[np.float32]]]  # of test samples, each [h, w]


@dataclass(frozen=True)
class Grid:
    """What to run on one dataset: every system, in every setting, with every number of shots and every seed."""

    data: str
    settings: tuple[Setting, ...] = ("general", "hard")
    shots: tuple[int, ...] = (1, 10)
    systems: tuple[str, ...] = (DEFAULT_SYSTEM,)
    seeds: int = 3  # number of seeds: 0, 1, 2
    schedule: str = "auto"
    epochs: int | None = None
    epoch: str = LAST  # or BEST: also report the AUROC of the best epoch, chosen on the test images
    pixel: bool = False  # also evaluate the maps' pixels, on images with masks
    backbone: str = DEFAULT
    backbone_weights: Path | None = None

    def __post_init__(self) -> None:
        if not (self.settings and self.shots and self.systems and self.seeds >= 1):
            raise ConfigError("the grid is empty: give at least one setting, number of shots, system and seed")
        if self.epoch not in (LAST, BEST):
            raise ConfigError(f"epoch is {self.epoch!r}, choose {LAST} or {BEST}")
        for name, setting, shots in product(self.systems, self.settings, self.shots):
            rivals.require() if name in RIVALS else system(name)
            self.config(Cell(name, setting, "any", shots, 0))

    def config(self, cell: Cell) -> TrainConfig:
        """The settings of a cell."""
        return TrainConfig(
            data=self.data,
            calibration=0,
            schedule=self.schedule,
            epochs=self.epochs,
            backbone=self.backbone,
            backbone_weights=self.backbone_weights,
            **asdict(cell),
        )

    def classes(self, dataset: Dataset) -> tuple[str, ...]:
        """The classes of the hard setting: those with enough anomalies for every number of shots."""
        counts = Counter(s.kind for s in dataset.anomalies)
        return tuple(c for c in dataset.classes if counts[c] >= max(self.shots))

    def cells(self, dataset: Dataset) -> tuple[Cell, ...]:
        """All cells, with seeds innermost: cells that run in parallel then need different pseudo anomalies."""
        rows = [(s, c) for s in self.settings for c in (self.classes(dataset) if s == "hard" else (None,))]
        return tuple(
            Cell(name, setting, seen_class, shots, seed)
            for (setting, seen_class), shots, name, seed in product(rows, self.shots, self.systems, range(self.seeds))
        )


def choose_systems(wanted: str) -> tuple[str, ...]:
    """System names from a comma-separated list. The groups `all`, `default` and `rivals` count as names.

    `all` means the paper's systems and ours. ConfigError for an unknown name; it lists the choices.
    """
    groups = {"all": SYSTEMS.built_in, "default": (DEFAULT_SYSTEM,), "rivals": tuple(RIVALS)}
    parts = [name.strip() for name in wanted.split(",")]
    names = tuple(dict.fromkeys(name for part in parts for name in groups.get(part, (part,))))
    if unknown := [name for name in names if name not in {*SYSTEMS, *RIVALS}]:
        choices = ", ".join((*groups, *SYSTEMS, *RIVALS))
        raise ConfigError(f"unknown systems {', '.join(map(repr, unknown))}: choose among {choices}")
    return names


def run_grid(
    grid: Grid,
    out: Path,
    *,
    cache: Path | None = None,
    jobs: int | None = None,
    ray: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Run the cells that have no result in ``out`` yet and append each result. Returns the path of results.jsonl.

    ``ray``: the address of a cluster, or "local". Without it, ``jobs`` processes run on this machine (default 1).
    TrainError before the first cell runs if the dataset cannot be split for a cell. TrainError later, with the cell's
    name, if a cell fails. Finished results stay, and the next call continues after them.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs is {jobs}, expected 1 or more")
    dataset = _readable(grid.data, report)
    cells = grid.cells(dataset)
    _check(grid, dataset, cells, report)
    work = _Work(grid, dataset, cache or default_cache(), _supersample(dataset))
    with open_results(out) as results:
        results.require_same(work.made())
        there = {Cell.of(line) for line in results.lines if line["data"] == grid.data}
        missing = [cell for cell in cells if cell not in there]
        report(f"{len(cells) - len(missing)} of {len(cells)} cells are done already")
        if not missing:
            return out / RESULTS
        work.open()  # here first, so that parallel processes don't extract the same features
        lines = by_ray(work.open, missing, ray, jobs) if ray else by_processes(work.open, missing, jobs or 1)
        for number, line in enumerate(lines, start=1):
            results.append(line)
            report(f"{number}/{len(missing)}: {Cell.of(line)}: {line['auroc']:.3f} ({line['seconds']:.0f} s)")
    return out / RESULTS


def deal(cell: Cell, dataset: Dataset) -> Split:
    """The cell's split. As in the paper, all train normals train: none is held out for calibration."""
    dealt = split(
        dataset, setting=cell.setting, shots=cell.shots, seed=cell.seed, seen_class=cell.seen_class, calibration=0
    )
    if len({s.label for s in dealt.test}) < 2:
        raise DataError(f"{dataset.name}: the test needs normals and anomalies: add images, or ask for fewer shots")
    return dealt


def auroc(base: Base, store: FeatureStore, samples: Sequence[Sample]) -> float:
    """AUROC of the total scores, computed where the store's extractor is."""
    return float(roc_auc_score([s.label for s in samples], scores(base, store, samples)))


@torch.inference_mode()
def scores(base: Base, store: FeatureStore, samples: Sequence[Sample]) -> NDArray[np.float32]:
    """The samples' total scores, float [N], computed where the store's extractor is."""
    there = base.to(store.device)
    with accelerator.ieee():
        found = [there.total(there(features)) for features in chunks(base, store, samples)]
    return torch.cat(found).cpu().numpy()


@torch.inference_mode()
def anomaly_maps(base: Base, store: FeatureStore, samples: Sequence[Sample]) -> list[NDArray[np.float32]]:
    """The samples' anomaly maps, each [h, w], computed where the store's extractor is."""
    there = base.to(store.device)
    with accelerator.ieee():
        maps = [there.maps(features).float().cpu() for features in chunks(base, store, samples)]
    return list(torch.cat(maps).numpy())


def chunks(base: Base, store: FeatureStore, samples: Sequence[Sample]) -> Iterator[Features]:
    """The features that a base reads, in chunks, on the device of the store's extractor."""
    rows = store.rows([Item(s) for s in samples])
    for start in range(0, len(rows), _CHUNK):
        features = store.read(rows[start : start + _CHUNK], base.inputs)
        yield {name: values.to(store.device) for name, values in features.items()}


@dataclass(frozen=True)
class _Work:
    """What a process needs to run cells."""

    grid: Grid
    dataset: Dataset
    cache: Path
    supersample: int

    @property
    def spec(self) -> BackboneSpec:
        return BackboneSpec(self.grid.backbone, self.grid.backbone_weights)

    def made(self) -> Result:
        """The settings that all cells share."""
        made = {key: getattr(self.grid, key) for key in ("schedule", "epochs", "epoch", "pixel", "backbone")}
        return {**made, "backbone_digest": self.spec.digest}

    def open(self) -> Callable[[Cell], Result]:
        """The function that runs a cell in this process. First extracts our systems' features, which cells share."""
        there = accelerator.device()
        ours = self._ours(there) if any(name in SYSTEMS for name in self.grid.systems) else None
        return partial(self._run, ours, Rivals(self.spec, there, maps=self.grid.pixel))

    def _ours(self, there: torch.device) -> tuple[Extractor, FeatureStore]:
        extractor = Extractor(self.spec, self.supersample).to(there)
        store = FeatureStore(self.cache, extractor, half=accelerator.precision("auto", there) == "float16")
        with progress_bar() as progress:
            store.rows([Item(s) for s in self.dataset.samples], progress)
        return extractor, store

    def _run(self, ours: tuple[Extractor, FeatureStore] | None, those: Rivals, cell: Cell) -> Result:
        """Train and test a cell; returns its result line."""
        with _naming(cell):
            started = perf_counter()
            dealt = deal(cell, self.dataset)
            if ours and cell.system in SYSTEMS:
                found, maps = self._of_ours(*ours, cell, dealt)
            else:
                found, maps = self._of_rival(those, cell, dealt)
            # The result is the last epoch's. The best epoch is chosen on test images: it is only reported.
            best = {"auroc_best": max(found)} if self.grid.epoch == BEST else {}
            measured = {"auroc": found[-1], **best, "seconds": round(perf_counter() - started, 3)}
            if self.grid.pixel:
                measured |= _pixels(maps, dealt)
        where = {"data": self.grid.data, "dataset": self.dataset.name, "classes": len(self.grid.classes(self.dataset))}
        return {**asdict(cell), **measured, **where, **self.made()}

    def _of_ours(self, extractor: Extractor, store: FeatureStore, cell: Cell, dealt: Split) -> tuple[list[float], Maps]:
        """AUROCs of one of our systems: the result is last, after those of the epochs if the best epoch is wanted."""
        chosen, found = system(cell.system), []
        torch.manual_seed(integer(cell.seed, Stream.WEIGHTS))
        base = chosen.base(extractor, cell.shots)

        def test(learned: Base) -> None:
            found.append(auroc(learned, store, dealt.test))

        after_epoch = test if self.grid.epoch == BEST else None
        learn(base, self.grid.config(cell), dealt, store, chosen.ahl, after_epoch=after_epoch)
        test(base)
        return found, partial(anomaly_maps, base, store)

    def _of_rival(self, those: Rivals, cell: Cell, dealt: Split) -> tuple[list[float], Maps]:
        """AUROC of a rival. A rival has no epochs."""
        found = those.find(cell.system, cell.seed, dealt.train_normal, self.dataset.samples)
        score = roc_auc_score([s.label for s in dealt.test], [found[s].score for s in dealt.test])
        return [float(score)], lambda samples: [of for s in samples if (of := found[s].map) is not None]


def _pixels(maps: Maps, dealt: Split) -> Result:
    """AUROC and AUPRO of the pixels of test normals and anomalies with masks; empty if no anomaly has a mask."""
    judged = [s for s in dealt.test if s.label == 0 or s.mask]
    if not any(s.label for s in judged):
        return {}
    masks = (mask for s in judged if (mask := load_mask(s, load(s).shape[:2])) is not None)  # all of them have one
    of_pixels, of_regions = pixels(maps(judged), masks)
    return {"pixel_auroc": of_pixels, "pixel_aupro": of_regions}


@contextmanager
def _naming(cell: Cell) -> Iterator[None]:
    try:
        yield
    except TrainError as error:
        raise type(error)(f"cell {cell}: {error}") from error
    except Exception as error:  # whatever torch, numpy or scikit-learn raise
        raise RunError(f"cell {cell} failed: {type(error).__name__}: {error}") from error


def _readable(data: str, report: Callable[[str], None]) -> Dataset:
    """The dataset without unreadable images. Copies stay: the paper's figures include them too."""
    dataset = load_dataset(data)
    readable, unreadable = verify(dataset.samples)
    for left_out in unreadable:
        report(f"left out, unreadable: {left_out}")
    return replace(dataset, samples=tuple(readable))


def _check(grid: Grid, dataset: Dataset, cells: Sequence[Cell], report: Callable[[str], None]) -> None:
    """Raise before hours of work if the dataset cannot be split for a cell."""
    few = sorted(set(dataset.classes) - set(grid.classes(dataset))) if "hard" in grid.settings else []
    if few:
        report(f"no hard rows for classes of fewer than {max(grid.shots)} anomalies: {', '.join(few)}")
    if not cells:
        raise DataError(f"{dataset.name}: no class has {max(grid.shots)} anomalies: ask for fewer shots")
    for cell in cells:
        with _naming(cell):
            deal(cell, dataset)


def _supersample(dataset: Dataset) -> int:
    """One supersampling for all cells, so that they share features. It depends only on the train normals' sizes."""
    train = split(dataset, shots=0, seed=0, calibration=0).train_normal
    return supersample_for(train)
