"""Check the promise on real images: false rejects of the default system over random splits of a dataset."""

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

import calibration
from ahl_export.errors import ExportError
from ahl_runtime.core.files import write_whole
from ahl_runtime.core.machine import cpu
from ahl_train.config import Calibrate, TrainConfig
from ahl_train.data.images import load_dataset, usable
from ahl_train.data.readers import Dataset, Sample
from ahl_train.data.split import Split, split
from ahl_train.errors import TrainError
from ahl_train.features import Extractor, FeatureStore, Item, default_cache, supersample_for
from ahl_train.features.backbone import BackboneSpec
from ahl_train.heads.base import Base
from ahl_train.method.cross import deal_folds
from ahl_train.method.fit import learn
from ahl_train.rng import Stream, generator, integer
from ahl_train.run import Fold
from ahl_train.systems import system
from ahl_train.training import split_of
from benchmarks.simulate import write_between

ALPHAS = (0.05, 0.01)
CONFIDENCES = (0.95, 0.5)  # the default, and the value that gives the plain split-conformal quantile
FEWER = (100, 300)  # numbers of calibration normals to try, in addition to all that are held out
_CHUNK = 64  # frames scored at once

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SplitScores:
    """Scores of one split, each float64 [n]. `trained`: number of train normals. `folds`: 0 for held-out normals.

    `held_out`: calibration normals in random order, or train normals fold by fold. `normal`, `anomalous`: test images.
    """

    held_out: Scores
    normal: Scores
    anomalous: Scores
    trained: int
    folds: int

    def to_json(self) -> dict[str, Any]:
        """The scores as JSON-able values for ``from_json``."""
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in vars(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SplitScores":
        read: dict[str, Any] = {name: np.array(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**read)


@dataclass(frozen=True)
class Kept:
    """The result of one alpha, confidence and number of calibration normals over all splits. Rates are in [0, 1].

    `mean`: mean false-reject rate on test normals. `error`: its standard error. `highest`: the largest rate of a split.
    `detected`: mean share of rejected test anomalies. `kind`: of the promise.
    """

    alpha: float
    confidence: float
    n: int
    kind: str
    mean: float
    error: float
    highest: float
    detected: float

    @property
    def holds(self) -> bool:
        """Is the mean rate at most alpha plus its standard error?"""
        return self.mean <= self.alpha + self.error


class Bench:
    """Trains and scores splits of a dataset, with cached features."""

    def __init__(self, config: TrainConfig, cache: Path) -> None:
        self.dataset, _ = usable(load_dataset(config.data))
        supersample = supersample_for(self.dataset.normals)
        self.extractor = Extractor(BackboneSpec(config.backbone, config.backbone_weights), supersample)
        self.store = FeatureStore(cache, self.extractor)

    def run(self, config: TrainConfig, normals: int | None) -> SplitScores:
        """Split by the seed, train and score, as `ahl train` does. TrainError."""
        config, dealt = split_of(self._only(normals, config.seed), config)
        final, folds = self._learn(config, dealt)
        if config.fold_count:
            held_out = [np.array(f.scores) for f in folds] or self._whole_folds(config, dealt)
        else:
            order = generator(config.seed, Stream.FALSE_REJECT_ORDER).permutation(len(dealt.calibration_normal))
            held_out = [self._score(final, [dealt.calibration_normal[i] for i in order])]
        return SplitScores(
            np.concatenate(held_out),
            self._score(final, [s for s in dealt.test if not s.label]),
            self._score(final, [s for s in dealt.test if s.label]),
            len(dealt.train_normal),
            config.fold_count,
        )

    def _whole_folds(self, config: TrainConfig, dealt: Split) -> list[Scores]:
        """Scores of each fold by a model that is trained without it, as in ``cross.score_folds``."""
        found = []
        for fold in deal_folds(len(dealt.train_normal), config.fold_count, config.seed):
            model, _ = self._learn(config, dealt, frozenset(fold))
            found.append(self._score(model, [dealt.train_normal[i] for i in fold]))
        return found

    def _only(self, normals: int | None, seed: int) -> Dataset:
        """The dataset with `normals` random train normals, and the test images of the whole dataset."""
        if normals is None:
            return self.dataset
        whole = split(self.dataset, shots=0, seed=seed, calibration=0)
        tested = {(s.path, s.crop) for s in whole.test}
        drawn = generator(seed, Stream.FALSE_REJECT_NORMALS).permutation(len(whole.train_normal))[:normals]
        samples = [replace(whole.train_normal[i], split="train") for i in sorted(drawn)]
        samples += [replace(s, split="test") for s in self.dataset.normals if (s.path, s.crop) in tested]
        return replace(self.dataset, samples=(*samples, *self.dataset.anomalies))

    def _learn(
        self, config: TrainConfig, dealt: Split, without: frozenset[int] = frozenset()
    ) -> tuple[Base, tuple[Fold, ...]]:
        chosen = system(config.system)
        torch.manual_seed(integer(config.seed, Stream.WEIGHTS))
        base = chosen.base(self.extractor, config.shots)
        return base, learn(base, config, dealt, self.store, chosen.ahl, without=without)

    @torch.inference_mode()
    def _score(self, base: Base, samples: Sequence[Sample]) -> Scores:
        rows = self.store.rows([Item(s) for s in samples])
        chunks = (self.store.read(rows[i : i + _CHUNK], base.inputs) for i in range(0, len(rows), _CHUNK))
        return torch.cat([base.total(base(features)) for features in chunks]).double().numpy()


@dataclass(frozen=True)
class SplitTrainer:
    """Makes the scores of splits and keeps them in the folder `out`.

    `normals`: the number of train normals, None for all. Scores that are in `out` are read instead of trained again. A
    file's name depends on the settings and the backbone's weights. So empty the folder after a change of the code.
    """

    out: Path
    cache: Path | None
    normals: int | None
    report: Callable[[str], None] = lambda line: None

    def splits(self, config: TrainConfig, count: int) -> list[SplitScores]:
        """The scores of `count` splits, with seeds 0, 1, ... TrainError, ExportError."""
        if count < 2:
            raise ExportError(f"splits is {count}: expected 2 or more, for a standard error")
        weights = BackboneSpec(config.backbone, config.backbone_weights).digest
        bench, found = None, []
        self.out.mkdir(parents=True, exist_ok=True)
        for seed in range(count):
            seeded = replace(config, seed=seed)
            made = json.dumps([seeded.to_json(), weights, self.normals])
            file = self.out / f"{hashlib.sha256(made.encode()).hexdigest()[:16]}.json"
            if not file.exists():
                started = time.perf_counter()
                bench = bench or Bench(config, self.cache or default_cache())
                scores = bench.run(seeded, self.normals)
                write_whole(file, [json.dumps(scores.to_json()).encode()])
                self.report(f"{config.calibrate}, split {seed + 1} of {count}: {time.perf_counter() - started:.0f} s")
            found.append(SplitScores.from_json(json.loads(file.read_text())))
        return found


def kept(splits: Sequence[SplitScores], alpha: float, confidence: float, n: int) -> Kept:
    """Calibrate on the first `n` held-out normals of each split, or out of fold, and count rejected test images."""
    fitted = [
        calibration.fit_cross(np.array_split(s.held_out, s.folds), alpha, confidence)
        if s.folds
        else calibration.fit(s.held_out[:n], alpha, confidence)
        for s in splits
    ]
    rates = np.array([(s.normal > f.threshold).mean() for s, f in zip(splits, fitted, strict=True)])
    detected = np.array([(s.anomalous > f.threshold).mean() for s, f in zip(splits, fitted, strict=True)])
    error = float(rates.std(ddof=1) / np.sqrt(len(rates)))
    kind = fitted[0].promise.kind  # the same for all splits, as it depends on n only
    mean, highest = float(rates.mean()), float(rates.max())
    return Kept(alpha, confidence, fitted[0].n, kind, mean, error, highest, float(detected.mean()))


def table(splits: Sequence[SplitScores]) -> tuple[str, bool]:
    """The table in Markdown, and whether every mean rate kept its alpha."""
    held_out = min(len(s.held_out) for s in splits)
    fewer = () if splits[0].folds else FEWER  # with folds, all normals calibrate
    sizes = [*(n for n in fewer if n < held_out), held_out]
    rows = [kept(splits, a, c, n) for a in ALPHAS for c in CONFIDENCES for n in sizes]
    lines = [
        "| alpha | confidence asked | normals | promise | mean rate (s.e.) | highest | defects rejected | holds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.alpha:.0%} | {r.confidence:.0%} | {r.n} | {r.kind} | {_rates(r)} "
        f"| {r.detected:.1%} | {'yes' if r.holds else 'NO'} |"
        for r in rows
    ]
    return "\n".join(lines), all(r.holds for r in rows)


def few_table(by_way: Mapping[str, Sequence[SplitScores]]) -> tuple[str, bool]:
    """Held-out and cross-calibration of the same few normals in Markdown, and whether every mean rate kept its alpha.

    `by_way`: the scores for each value of `ahl train --calibrate`.
    """
    lines = [
        "| calibrate | alpha | confidence asked | normals that train, calibrate | promise | mean rate (s.e.) | highest "
        "| defects rejected | holds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    good = True
    for way, splits in by_way.items():
        for r in (kept(splits, ALPHAS[0], c, len(splits[0].held_out)) for c in CONFIDENCES):
            good = good and r.holds
            lines.append(
                f"| {way} | {r.alpha:.0%} | {r.confidence:.0%} | {splits[0].trained}, {r.n} | {r.kind} | {_rates(r)} "
                f"| {r.detected:.1%} | {'yes' if r.holds else 'NO'} |"
            )
    return "\n".join(lines), good


def _rates(r: Kept) -> str:
    return f"{r.mean:.2%} ({r.error:.2%}) | {r.highest:.2%}"


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the table. Returns 0 if every promise held, 1 if one did not, 2 for a wrong setting."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.false_rejects", description=__doc__)
    parser.add_argument("--data", default="elpv")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--epochs", type=int, help="number of epochs; default: that of the schedule")
    parser.add_argument("--normals", type=int, help="compare held-out and cross-calibration with so many train normals")
    parser.add_argument("--calibrate", choices=get_args(Calibrate), default="auto", help="as for ahl train")
    parser.add_argument("--out", type=Path, default=Path("false-rejects"), help="folder for the scores of each split")
    parser.add_argument("--cache", type=Path, help="feature cache, as for ahl train")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table between FILE's markers")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    try:
        config = TrainConfig(options.data, shots=options.shots, epochs=options.epochs, calibrate=options.calibrate)
        made = SplitTrainer(options.out, options.cache, options.normals, _say)
        if options.normals is None:
            splits = made.splits(config, options.splits)
            name, (text, holds) = "kept-cross" if splits[0].folds else "kept", table(splits)
        else:
            by_way = {way: made.splits(replace(config, calibrate=way), options.splits) for way in ("split", "cross")}
            splits = by_way["cross"]
            name, (text, holds) = "kept-few", few_table(by_way)
        first = splits[0]
        tested = (
            f"{len(first.normal)} normals and {len(first.anomalous)} defects tested in each of {len(splits)} splits"
        )
        shown = shlex.join(["python", "-m", "benchmarks.false_rejects", *_without_folders(given)])
        text = f"{text}\n\nWritten by `{shown}` ({tested}; {cpu()})."
        if options.write:
            write_between(options.write, name, text)
        sys.stdout.write(f"{text}\n")
    except (calibration.CalibrationError, ExportError, TrainError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0 if holds else 1


def _without_folders(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that name folders of this machine."""
    kept_arguments: list[str] = []
    for argument in arguments:
        if kept_arguments and kept_arguments[-1] in ("--out", "--cache"):
            kept_arguments.pop()
        else:
            kept_arguments.append(argument)
    return kept_arguments


if __name__ == "__main__":
    sys.exit(main())
