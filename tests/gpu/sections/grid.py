"""The paper's systems on the paper's schedule, as many cells of ELPV's grid as time allows; a later call goes on."""

import statistics
import subprocess
import sys
import time
from collections import defaultdict

from common import Ask, Result, few, subset

from ahl_runtime.engines.base import cores
from ahl_train.benchmark.grid import Grid
from ahl_train.benchmark.results import Cell, read_results
from ahl_train.data.readers import load_dataset
from ahl_train.errors import RunError
from ahl_train.systems import SYSTEMS

_PAPER = tuple(name for name in SYSTEMS if name != "ahl-density")
_END = 5.0  # seconds to stop in


def measure(ask: Ask) -> Result:
    """`done` of `cells`, mean AUROC by system and row, seconds of a cell."""
    data, systems, words = ask.data, _PAPER, ["--schedule", "paper"]
    if ask.small:
        data = subset(few(load_dataset(ask.data), 48, 12), ask.folder / "cells")
        systems = ("devnet", "ahl-devnet")
        words = ["--setting", "general", "--shots", "2", "--seeds", "1", "--epochs", "1"]
    jobs = max(1, min(6, cores(None) // 2)) if ask.on_gpu else 1
    out = ask.folder / "grid"
    words += ["--systems", ",".join(systems), "--data", data, "--jobs", str(jobs)]
    words += ["--out", str(out), "--cache", str(ask.folder / "features")]
    call = [sys.executable, "-m", "ahl_export.cli.main", "benchmark", *words]
    started = time.perf_counter()
    running = subprocess.Popen(call, stdout=sys.stderr, stderr=sys.stderr)  # its processes end with the section's
    try:
        code = running.wait(max(1.0, ask.seconds - _END))
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
        code = None
    if code:
        raise RuntimeError(f"ahl benchmark ended with code {code}")
    taken = time.perf_counter() - started
    try:
        lines = read_results(out)
    except RunError:  # not one cell was done in time
        lines = []
    rows: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        cell = Cell.of(line)
        where = f"{cell.setting} {cell.seen_class or ''}".strip()
        rows[f"{SYSTEMS[cell.system].title}, {where}, {cell.shots} shots"].append(line["auroc"])
    settings = ("general",) if ask.small else ("general", "hard")
    grid = Grid(data, settings, (2,) if ask.small else (1, 10), systems, 1 if ask.small else 3)
    dataset = load_dataset(data)
    return {
        "data": "ELPV" if data == "elpv" else f"a part of ELPV, {len(dataset.samples)} images",
        "cells": len(grid.cells(dataset)),
        "done": len(lines),
        "jobs": jobs,
        "seconds": round(taken, 1),
        "cell_s": statistics.median(line["seconds"] for line in lines) if lines else None,
        "auroc": {row: round(statistics.mean(values), 3) for row, values in sorted(rows.items())},
        "bars": [],
    }
