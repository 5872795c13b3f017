"""Epochs of CDL on the paper's schedule, replayed and step by step: seconds, kernels a step, memory, the longest."""

import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from common import Ask, Result, bar, few, open_extractor, peak, profiled, wait

from ahl_train.config import TrainConfig
from ahl_train.data.readers import Dataset
from ahl_train.data.split import split
from ahl_train.features import Extractor, FeatureStore
from ahl_train.method.cdl import CDL
from ahl_train.method.fit import begin
from ahl_train.method.importance import HISTORY
from ahl_train.systems import SYSTEMS, system

_PAPER = "ahl-dra"  # whose epoch has a bound
_BOUND = 3.0  # seconds
_MEMORY = 8.0  # GB


def measure(ask: Ask) -> Result:
    """By system: what `_system` finds; `bars`."""
    dataset, extractor = open_extractor(ask.data, ask.device)
    if ask.small:
        dataset = replace(dataset, samples=few(dataset, 32, 12))
    store = FeatureStore(ask.folder / "features", extractor, half=ask.on_gpu)
    found = {name: _system(name, ask, dataset, extractor, store) for name, chosen in SYSTEMS.items() if chosen.ahl}
    bars = []
    if ask.on_gpu:
        bars = [
            bar("seconds of AHL(DRA)'s epoch", found[_PAPER]["epoch_s"], _BOUND),
            bar("GB of the GPU", max(one["peak_gb"] for one in found.values()), _MEMORY),
        ]
    return {"systems": found, "schedule": "paper", "shots": 4 if ask.small else 10, "bars": bars}


def _system(name: str, ask: Ask, dataset: Dataset, extractor: Extractor, store: FeatureStore) -> Result:
    """Seconds of an epoch with psi at work, the median of three; before it, and of the steps called one by one."""
    shots = 4 if ask.small else 10
    config = TrainConfig(ask.data, system=name, shots=shots, schedule="paper")
    dealt = split(dataset, shots=shots, seed=0, calibration=0)
    result: Result = {"title": system(name).title}
    torch.manual_seed(0)
    with peak(ask.device, result):
        started = time.perf_counter()
        cdl, *_ = begin(system(name).base(extractor, shots), config, dealt, store, ahl=True)
        wait(ask.device)
        result["begin_s"] = round(time.perf_counter() - started, 3)  # features, densities, HADG
        if ask.small:
            cdl.schedule = replace(cdl.schedule, inner_steps=2, outer_steps=2, batch=12, watched=4)
        taken = [_epoch(cdl, ask) for _ in range(HISTORY + (1 if ask.small else 3))]
    result |= {
        "first_s": round(taken[0], 3),  # what is captured is captured here
        "epoch_s": round(statistics.median(taken[HISTORY:]), 4),
        "refused": cdl.inner.refused or cdl.outer.refused,
    }
    result["profile"] = profiled(ask.device, cdl.run_epoch)
    cdl.inner.refused = cdl.outer.refused = "to be compared with"
    result["one_by_one_s"] = round(min(_epoch(cdl, ask) for _ in range(1 if ask.small else 2)), 4)
    cdl.schedule = replace(cdl.schedule, inner_steps=1)
    result["kernels_a_step"] = profiled(ask.device, lambda: cdl._adapt(np.random.default_rng(0)))["kernels"]
    return result


def _epoch(cdl: CDL, ask: Ask) -> float:
    started = time.perf_counter()
    cdl.run_epoch()
    wait(ask.device)
    return time.perf_counter() - started
