"""The gate: an artefact must score like the trained model, on frames of many sizes and kinds."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import calibration
from ahl_runtime.core.types import Engine, Outputs
from ahl_runtime.engines.base import cores
from ahl_train.data.images import load
from ahl_train.features import Item
from ahl_train.run import Run

_SHAPES = ((448, 448), (768, 1024), (500, 120))  # (H, W), besides the frames' own: exports drift in resizing
_KINDS = ("cutmix", "cutpaste", "draem")
_PSEUDO = 40  # pseudo anomalies whose decisions are compared
_TIMED = 50  # frames

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """The limits of a gate. `score`, `map`: largest difference from the model, relative where its value is above 1.

    `unit`: replaces that 1 for scores. For artefacts that round, it is the spread of normals' scores (``spread``),
    because a difference affects decisions in proportion to it. `flips`: share of decisions that may differ from the
    float32 graph's, beyond chance; `rank`: least rank correlation with it.
    """

    score: float
    map: float
    flips: float
    rank: float
    unit: float = 1.0


@dataclass(frozen=True)
class Closeness:
    """How far an engine is from the model in torch, with differences as in ``Bounds``."""

    frames: int
    score_max: float
    score_mean: float
    map_max: float
    map_mean: float


@dataclass(frozen=True, eq=False)
class Survey:
    """An engine's scores of calibration normals and pseudo anomalies, and its times.

    `milliseconds`: of the first normals, one at a time; `map_range`: [low, high] for colouring maps.
    """

    normal: Scores
    pseudo: Scores
    milliseconds: Scores
    map_range: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The frames that artefacts are tested on.

    The model has not trained on them, except on the donors of pseudo anomalies, and if all normals train (cross).
    """

    run: Run

    @cached_property
    def gate(self) -> list[Pixels]:
        """Normals, pseudo anomalies of each kind, and other sizes and shapes."""
        split, seed = self.run.split, self.run.config.seed
        normals = [Item(s) for s in self.run.calibration_normals[:4]]
        donor = split.train_normal[-1]
        pseudo = [Item(i.sample, kind, donor, seed) for i, kind in zip(normals, _KINDS, strict=False)]
        own = [item.pixels() for item in [*normals, *pseudo]]
        resized = [np.asarray(Image.fromarray(own[-1]).resize((w, h), Image.Resampling.BILINEAR)) for h, w in _SHAPES]
        return own + resized

    @cached_property
    def wanted(self) -> list[Outputs]:
        """The outputs of the model in torch for the gate's frames."""
        scored = (self.run.model.score(torch.from_numpy(np.array(frame))[None]) for frame in self.gate)
        return [Outputs(*(t.numpy() for t in outputs)) for outputs in scored]

    @cached_property
    def model_scores(self) -> Scores:
        """The score of the model in torch for each calibration normal, float64 [n]."""
        scored = (self.run.model.score(torch.from_numpy(np.array(pixels))[None])[0] for pixels in self.normals())
        return np.array([score.item() for score in scored])

    @cached_property
    def statistics(self) -> list[calibration.FrameStatistics]:
        """Frame statistics of each calibration normal's pixels, the same for every engine."""
        with ThreadPoolExecutor(cores(None)) as pool:
            return list(pool.map(lambda s: calibration.frame_statistics(load(s)), self.run.calibration_normals))

    def normals(self) -> Iterator[Pixels]:
        """The calibration normals, uint8 [H, W, 3], one in memory at a time."""
        return (load(s) for s in self.run.calibration_normals)

    def pseudo(self) -> Iterator[Pixels]:
        """Pseudo anomalies of each kind, made of calibration normals with train normals as donors."""
        split = self.run.split
        for i, sample in enumerate(self.run.calibration_normals[:_PSEUDO]):
            donor = split.train_normal[(i + 1) % len(split.train_normal)]  # another sample, if the same normals train
            yield Item(sample, _KINDS[i % len(_KINDS)], donor, self.run.config.seed).pixels()


def spread(normals: Scores) -> float:
    """The standard deviation of normals' scores, float [N], at least 1: the prior of all systems has 1."""
    return max(1.0, float(np.std(normals)))


def compare(engine: Engine, frames: Sequence[Pixels], wanted: Sequence[Outputs], unit: float = 1.0) -> Closeness:
    """Score each frame, uint8 [H, W, 3], and compare with the model's outputs; `unit` as in ``Bounds``."""
    got = [engine.infer(frame[None]) for frame in frames]
    scores = [difference(w.score, g.score, unit) for w, g in zip(wanted, got, strict=True)]
    maps = [difference(w.anomaly_map, g.anomaly_map) for w, g in zip(wanted, got, strict=True)]
    return Closeness(
        len(frames),
        float(np.max([s.max() for s in scores])),
        float(np.mean([s.mean() for s in scores])),
        float(np.max([m.max() for m in maps])),
        float(np.mean([m.mean() for m in maps])),
    )


def survey(engine: Engine, evidence: Evidence, parallel: Engine | None = None) -> Survey:
    """Score every calibration normal and the pseudo anomalies. The first normals are scored one at a time and timed.

    `parallel`: the same artefact, built for frames in parallel; it scores the frames that are not timed.
    """
    parallel = parallel or engine

    def look(engine: Engine, pixels: Pixels) -> tuple[float, NDArray[np.float32]]:
        outputs = engine.infer(pixels[None])
        return float(outputs.score[0]), outputs.anomaly_map[0].ravel()

    seen, milliseconds, normals = [], [], evidence.run.calibration_normals
    for sample in normals[:_TIMED]:
        pixels, started = load(sample), perf_counter()
        seen.append(look(engine, pixels))
        milliseconds.append(1e3 * (perf_counter() - started))
    # In parallel the rest takes two thirds of the time: within one frame, an engine's threads wait for each other.
    with ThreadPoolExecutor(cores(None)) as pool:
        seen += pool.map(lambda sample: look(parallel, load(sample)), normals[_TIMED:])
        pseudo = [score for score, _ in pool.map(partial(look, parallel), evidence.pseudo())]
    middle, top = np.quantile(np.concatenate([values for _, values in seen]), (0.5, 0.999))
    # Colour begins above what normal frames usually show and is full at twice their range.
    map_range = (float(middle), float(middle + 2 * (top - middle) + 1e-6))
    return Survey(np.array([score for score, _ in seen]), np.array(pseudo), np.array(milliseconds), map_range)


def rank_correlation(a: Scores, b: Scores) -> float:
    """Spearman's rank correlation of two [n] without many ties."""
    first, second = (np.argsort(np.argsort(x)).astype(float) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def departs(found: Closeness, bounds: Bounds) -> str | None:
    """How the engine exceeds the bounds; None if it does not."""
    if found.score_max <= bounds.score and found.map_max <= bounds.map:  # NaN is not close
        return None
    unit = "" if bounds.unit == 1 else f" spreads of {bounds.unit:.2g}"
    return (
        f"scores by up to {found.score_max:.2g}{unit} ({bounds.score:.0e} allowed), "
        f"maps by {found.map_max:.2g} ({bounds.map:.0e} allowed)"
    )


def difference(wanted: NDArray[np.floating], got: NDArray[np.floating], unit: float = 1.0) -> NDArray[np.floating]:
    """The difference of each value, in units; relative where the expected value is above one unit."""
    found: NDArray[np.floating] = np.abs(wanted - got) / np.maximum(unit, np.abs(wanted))
    return found
