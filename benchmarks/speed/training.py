"""The bench of training: CDL compared with a plain sequential loop, features, HADG, growth with the normals."""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ahl_export.errors import ExportError
from ahl_runtime.tuning.measure import Spread, milliseconds
from ahl_train.benchmark.page import write
from ahl_train.config import SCHEDULES
from ahl_train.features import Extractor
from ahl_train.features.backbone import BackboneSpec
from ahl_train.features.clusters import CLUSTERS
from ahl_train.heads.base import Base, Copies
from ahl_train.memory import keep
from ahl_train.method import hadg
from ahl_train.method.cdl import CDL
from ahl_train.systems import system
from benchmarks.speed.cdl import SHOTS, Memory, Sequential, largest_difference

SYSTEMS = ("ahl-density", "ahl-devnet", "ahl-dra")
NORMALS = (1_000, 4_000, 10_500)  # Optical has 10,500
_EPOCHS = 3  # of each loop, in turn
_STEPS = 2  # outer steps in the check that both loops give the same result
_T = CLUSTERS * (CLUSTERS - 1) + 1  # distributions
_MEMORY = 300, SHOTS, 150  # normals, seen and pseudo anomalies in memory


def measure(folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """`cdl` by system, `parts` and `growth`, JSON-able. `folder` keeps finished parts. ExportError, TrainError."""
    folder.mkdir(parents=True, exist_ok=True)
    extractor = Extractor(BackboneSpec()).eval()

    def kept(name: str, part: Callable[[], Any]) -> Any:
        file = folder / f"{name}.json"
        if not file.exists():
            report(f"training: {name}")
            write(file, json.dumps(part()))
        return json.loads(file.read_text())

    return {
        "cdl": {name: kept(f"cdl-{name}", partial(compare, name, extractor)) for name in SYSTEMS},
        "parts": kept("parts", lambda: parts(extractor)),
        "growth": [kept(f"growth-{n}", partial(_growth, n, folder)) for n in NORMALS],
    }


def compare(name: str, extractor: Extractor, epochs: int = _EPOCHS) -> dict[str, Any]:
    """Compare batched epochs of a system with those of one model after the other, in turn and on the same batches.

    Seconds of an epoch and the ratio are [median, quartiles]. The time of preparation is spread evenly over the epochs
    of the schedule. `largest`: the result of ``differ``.
    """
    keep()
    base, memory = _fitted(name, extractor)
    plain = copy.deepcopy(base)
    schedule, started = SCHEDULES[system(name).schedule], time.perf_counter()
    cdl = CDL(base, memory.tasks(_T), memory, schedule, seed=0, plus=False)
    once = (time.perf_counter() - started) / schedule.epochs
    sequential = Sequential(plain, cdl, memory)
    batched_s, sequential_s = [], []
    for _ in range(epochs):
        started = time.perf_counter()
        cdl.run_epoch()
        batched_s.append(once + time.perf_counter() - started)
        started = time.perf_counter()
        sequential.run_epoch()
        sequential_s.append(time.perf_counter() - started)
    ratios = [s / b for s, b in zip(sequential_s, batched_s, strict=True)]
    return {
        "batched_s": _values(batched_s),
        "sequential_s": _values(sequential_s),
        "ratio": _values(ratios),
        "largest": differ(name, extractor),
    }


def differ(name: str, extractor: Extractor) -> float:
    """The largest difference of a sample's score after a short epoch of both loops, in double precision.

    In single precision, rounding errors leave tiny gradients where the true gradient is zero. Adam turns each into a
    full step in a random direction.
    """
    base, memory = _fitted(name, extractor)
    base, memory.all = base.double(), {key: values.double() for key, values in memory.all.items()}
    plain = copy.deepcopy(base)
    schedule = replace(SCHEDULES[system(name).schedule], outer_steps=_STEPS)
    cdl = CDL(base, memory.tasks(_T), memory, schedule, seed=0, plus=False)
    sequential = Sequential(plain, cdl, memory)
    cdl.run_epoch()
    sequential.run_epoch()
    return largest_difference(base, plain, memory)


def epoch(name: str, extractor: Extractor, schedule: str, distributions: int = _T) -> float:
    """Seconds of one epoch of CDL+. For short schedules, one epoch to warm up runs before it."""
    keep()
    base, memory = _fitted(name, extractor)
    cdl = CDL(base, memory.tasks(distributions), memory, SCHEDULES[schedule], seed=0)
    taken = 0.0
    for _ in range(1 if schedule == "paper" else 2):
        started = time.perf_counter()
        cdl.run_epoch()
        taken = time.perf_counter() - started
    return taken


def _fitted(name: str, extractor: Extractor) -> tuple[Base, Memory]:
    """The base of a system, fitted on random features, and the memory with these features."""
    torch.manual_seed(0)
    base = system(name).base(extractor, SHOTS)
    memory = Memory({key: extractor.shapes[key] for key in base.inputs}, *_MEMORY)
    normals, seen = (memory(memory.groups[g]) for g in (0, 1))
    base.fit(normals, seen, Copies(memory(memory.groups[2][: base.copied])))
    return base, memory


def parts(extractor: Extractor, seconds: float = 5.0) -> list[tuple[str, float, str, str]]:
    """The time of each part of training, features first: name, value, unit, note."""
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), dtype=np.uint8))
    with torch.inference_mode():
        features = Spread.of(milliseconds(lambda: extractor(frame), seconds)).median
    vectors = np.random.default_rng(0).random((1_000, extractor.channels), np.float32)
    clustering = Spread.of(
        milliseconds(lambda: hadg.generate(vectors, SHOTS, np.random.default_rng(0)), seconds)
    ).median
    return [
        ("features", features, "ms", "a frame of 300 px, both scales, kept once for every system and seed"),
        ("HADG", clustering, "ms", "1,000 normals"),
        *(
            ("CDL+, an epoch of AHL(Density)", epoch("ahl-density", extractor, "short", t), "s", f"T = {t}")
            for t in (1, 3, _T)
        ),
        (
            "CDL+, an epoch of AHL(DRA)",
            epoch("ahl-dra", extractor, "paper"),
            "s",
            "the paper's schedule: 60 inner and 20 outer steps of 48, T = 7",
        ),
    ]


def _growth(n: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.speed.growth", str(n), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"training on {n} normals ended with code {done.returncode}: {message}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _values(taken: list[float]) -> list[float]:
    spread = Spread.of(taken)
    return [spread.median, spread.low, spread.high]
