"""What the sections share: what they are asked, the images, and how a device is timed and profiled."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ahl_train.data.images import load
from ahl_train.data.readers import Dataset, Sample, load_dataset
from ahl_train.features import Extractor, supersample_for
from ahl_train.features.backbone import BackboneSpec

ROOT = Path(__file__).parents[2]
CARRIED = ROOT / "build" / "gpu"
CPU = torch.device("cpu")
Result = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """What a section is asked: on which device, with small sizes or whole ones, in which folder, for how long."""

    device: torch.device
    small: bool
    data: str
    folder: Path
    seconds: float

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


def bar(name: str, value: float, bound: float, *, least: bool = False) -> Result:
    """A figure beside what it must not pass, or, with ``least``, must reach."""
    holds = value >= bound if least else value <= bound
    return {"name": name, "value": value, "bound": bound, "least": least, "holds": holds}


def default_data() -> str:
    """The installed package of ELPV, else the part of it that was carried along."""
    return "elpv" if find_spec("elpv_dataset") else f"elpv:{CARRIED / 'elpv'}"


def few(dataset: Dataset, normals: int, anomalies: int) -> tuple[Sample, ...]:
    """The first of each."""
    return (*dataset.normals[:normals], *dataset.anomalies[:anomalies])


def open_extractor(data: str, device: torch.device) -> tuple[Dataset, Extractor]:
    """The images, and the default extractor for their size."""
    dataset = load_dataset(data)
    supersample = supersample_for(dataset.normals)
    return dataset, Extractor(BackboneSpec(), supersample).eval().to(device)


def decoded(samples: Sequence[Sample], count: int) -> list[Tensor]:
    """``count`` frames, uint8 [H, W, 3], of the samples over and over."""
    unique = [torch.from_numpy(load(sample).copy()) for sample in samples[:count]]
    return [unique[i % len(unique)] for i in range(count)]


def wait(device: torch.device) -> None:
    """Until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """That the work takes, all of it."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


@contextmanager
def peak(device: torch.device, found: Result) -> Iterator[None]:
    """``peak_gb`` into ``found``: memory that torch took of the GPU at most; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield
    if device.type == "cuda":
        found["peak_gb"] = round(torch.cuda.max_memory_reserved(device) / 1e9, 3)


def profiled(device: torch.device, work: Callable[[], object]) -> Result:
    """``kernels``: how many ran; ``busy``: their share of the time that all took; ``top``: the ten that took longest.

    On a CPU, operations in place of kernels.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as seen:
        taken = seconds(device, work)
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    spent: dict[str, list[float]] = {}
    for event in seen.events():
        # A range that torch names, as of an optimizer's step, holds kernels that are counted already.
        if event.device_type == kind and not (on_gpu and getattr(event, "is_user_annotation", False)):
            taken_us = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            spent.setdefault(event.name, []).append(taken_us)
    total = sum(map(sum, spent.values()))
    longest = sorted(spent, key=lambda name: -sum(spent[name]))[:10]
    return {
        "kernels": sum(map(len, spent.values())),
        "busy": round(total / 1e6 / taken, 3),
        "top": [
            {"name": name[:120], "times": len(spent[name]), "ms": round(sum(spent[name]) / 1e3, 3)} for name in longest
        ],
    }


def subset(samples: Sequence[Sample], folder: Path) -> str:
    """Copies of ELPV's cells in its own layout; the ``--data`` that names them. What the folder held is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    lines = []
    for sample in samples:
        shutil.copy(sample.path, folder / "images")
        # A normal's kind of cell is no class of it: any does.
        kind = sample.kind if sample.label else "mono"
        lines.append(f"images/{sample.path.name} {float(sample.label)} {kind}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return f"elpv:{folder}"


def ahl(*words: object) -> None:
    """Run the command line. RuntimeError with its last line where it fails."""
    call = [sys.executable, "-m", "ahl_export.cli.main", *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing was said").splitlines()[-1]
        raise RuntimeError(f"ahl {words[0]} ended with code {done.returncode}: {said}")
