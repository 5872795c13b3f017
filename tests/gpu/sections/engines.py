"""The device's GPU engines there: ONNX Runtime on CUDA, TensorRT, TensorRT for RTX; which could be brought, and run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from common import CARRIED, Ask, Result, ahl, bar, few, subset
from pieces import join

from ahl_train.data.readers import load_dataset

_MISSING = "not installed"
_PACKAGES = {
    "onnxruntime-cuda": "onnxruntime-gpu",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
}


def measure(ask: Ask) -> Result:
    """By engine its package, or that it is not there; what `ahl-runtime check` says of each engine; `bars`."""
    brought, left_out = join(CARRIED / "pieces", CARRIED / "engines")
    # Torch's CUDA and cuDNN: a package that was brought looks for them beside itself.
    libraries = Path(torch.__file__).parents[1].glob("nvidia/*/lib")
    env = {
        "PYTHONPATH": _path(CARRIED / "engines", also=os.environ.get("PYTHONPATH")),
        "LD_LIBRARY_PATH": _path(*libraries, also=os.environ.get("LD_LIBRARY_PATH")),
    }
    packages = {engine: _version(package, env) for engine, package in _PACKAGES.items()}
    bundle = _bundle(ask, trt=packages["tensorrt"] != _MISSING)
    # It fails where an engine's scores differ: its words are wanted all the same.
    call = [sys.executable, "-m", "ahl_runtime.cli.main", "check", str(bundle), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, **env}, check=False)
    if not done.stdout.strip():
        raise RuntimeError(f"ahl-runtime check: {(done.stderr.strip() or 'nothing was said').splitlines()[-1]}")
    checks = json.loads(done.stdout)["engines"]
    differ = sum(one["passed"] is False for one in checks)
    bars = [bar("engines whose scores are not the bundle's", differ, 0)]
    return {"brought": brought, "left_out": left_out, "packages": packages, "checks": checks, "bars": bars}


def _path(*folders: Path, also: str | None) -> str:
    return os.pathsep.join([*map(str, folders), *([also] if also else [])])


def _version(package: str, env: dict[str, str]) -> str:
    asked = f"from importlib.metadata import version; print(version({package!r}))"
    call = [sys.executable, "-c", asked]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, **env}, check=False)
    return _MISSING if done.returncode else done.stdout.strip()


def _bundle(ask: Ask, trt: bool) -> Path:
    """Of a run of one epoch: weights are no matter here."""
    data = subset(few(load_dataset(ask.data), 60, 10), ask.folder / "cells")
    words = ["--device", ask.device, "--cache", ask.folder / "cache", "--shots", 4, "--epochs", 1, "--calibration", 20]
    ahl("train", "--data", data, "--out", ask.folder / "run", *words)
    bundle = ask.folder / "engines.ahl"
    ahl("export", ask.folder / "run", "--out", bundle, "--tail", *(["--trt"] if trt else []))
    return bundle
