"""The road on a GPU: ahl train, ahl export, and the bundle's scores beside those of a run that a CPU trained."""

import time
from pathlib import Path

import numpy as np
import torch
from common import CPU, Ask, Result, ahl, bar, few, subset
from sklearn.metrics import roc_auc_score

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.score.scoring import Scorer
from ahl_train import accelerator
from ahl_train.data.images import load
from ahl_train.data.readers import load_dataset
from ahl_train.run import Run, load_run

_SMALL = ("--epochs", 1, "--calibration", 20)
_TESTED = 48  # frames
_EXPORTED = 1e-3  # in spreads of normals' scores: the bundle against its own model
_TRAINED = 0.5  # the same, a run of a GPU on float16 features against one of a CPU on float32
_AUROC = 0.005


def measure(ask: Ask) -> Result:
    """Seconds of both commands, differences, AUROC of both runs on the test frames; `bars`."""
    data = ask.data
    if ask.small:
        data = subset(few(load_dataset(ask.data), 60, 10), ask.folder / "cells")
    found: Result = {}
    runs = {}
    for name, device in (("device", ask.device), ("cpu", CPU)):
        started = time.perf_counter()
        _train(data, device, ask.folder / name, ask)
        found[f"train_{name}_s"] = round(time.perf_counter() - started, 2)
        runs[name] = load_run(ask.folder / name)
    started = time.perf_counter()
    # A small run has too few normals for a guarantee: a model of their tail promises then.
    ahl("export", ask.folder / "device", "--out", ask.folder / "device.ahl", "--tail")
    found["export_s"] = round(time.perf_counter() - started, 2)
    return found | _compare(runs, ask)


def _train(data: str, device: torch.device, out: Path, ask: Ask) -> None:
    words = ["--data", data, "--device", device, "--shots", 4 if ask.small else 10, "--out", out]
    words += ["--cache", ask.folder / f"cache-{out.name}", *(_SMALL if ask.small else [])]
    ahl("train", *words)


def _compare(runs: dict[str, Run], ask: Ask) -> Result:
    own = runs["device"]
    normal = [sample for sample in own.split.test if not sample.label]
    broken = [sample for sample in own.split.test if sample.label]
    samples = [*normal[: _TESTED // 2], *broken[: _TESTED // 2]]
    frames = [load(sample) for sample in samples]
    labels = np.array([sample.label for sample in samples])
    scorer = Scorer(open_bundle(ask.folder / "device.ahl"), "onnxruntime")
    bundle = np.array([scorer.score(frame).score for frame in frames])
    on_cpu = _scores(own, frames, CPU)
    on_device = _scores(own, frames, ask.device)
    by_cpu = _scores(runs["cpu"], frames, CPU)
    spread = on_cpu[labels == 0].std()

    def differ(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a - b).max() / spread)

    aurocs = {name: round(float(roc_auc_score(labels, s)), 4) for name, s in (("device", on_cpu), ("cpu", by_cpu))}
    return {
        "precision": own.record["precision"],
        "frames": len(frames),
        "auroc": aurocs,
        "bars": [
            bar(
                "bundle on the CPU against its model on the CPU, in spreads of normals",
                differ(bundle, on_cpu),
                _EXPORTED,
            ),
            bar("model on the device against itself on the CPU, the same", differ(on_device, on_cpu), _EXPORTED),
            bar("trained there against trained on the CPU, the same", differ(on_cpu, by_cpu), _TRAINED),
            bar("AUROC of the two, difference", abs(aurocs["device"] - aurocs["cpu"]), _AUROC),
        ],
    }


def _scores(run: Run, frames: list[np.ndarray], device: torch.device) -> np.ndarray:
    model = run.model.to(device)
    with accelerator.ieee():
        return np.array([model.score(torch.from_numpy(f.copy())[None].to(device))[0].item() for f in frames])
