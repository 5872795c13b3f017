"""Measure the time and memory of scoring on this device. Each engine runs in its own process."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.core import machine
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import BenchError
from ahl_runtime.engines import tuned
from ahl_runtime.engines.base import cores
from ahl_runtime.tuning.bench_worker import frame
from ahl_runtime.tuning.measure import Spread, Worker, in_turn
from ahl_runtime.tuning.tune import ENGINES

ROUNDS = 5
PACKAGES = ("ahl", "numpy", "onnxruntime", "openvino", "pillow", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Asked:
    """`engine`: one, or None for all that can run here. `seconds`: per measurement. `threads`: None for all cores."""

    engine: str | None = None
    seconds: float = 5.0
    threads: int | None = None


def bench(bundle: Bundle, asked: Asked, report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure each engine. Returns JSON-able figures; docs/how-to/speed.md lists the fields. BenchError, EngineError.

    The engines take turns within each measurement. Each time is that of one decoded frame, from pixels to the decision
    with its map. The frame is the reference frame with the lowest score (`bench_worker.frame`).
    """
    names = [asked.engine] if asked.engine else engines.available(bundle)
    artefacts = {name: engines.artefact(bundle, name) for name in names}
    threads = cores(asked.threads)
    with ExitStack() as stack:
        extra = [] if asked.threads is None else [threads]
        workers = [
            stack.enter_context(
                Worker(name, "ahl_runtime.tuning.bench_worker", bundle.path, bundle.digest, name, *extra)
            )
            for name in names
        ]
        report(f"scoring: {', '.join(names)}")
        timed = in_turn(workers, asked.seconds, ROUNDS, threads)
        stages = [worker.ask("stages", seconds=asked.seconds / ROUNDS) for worker in workers]
    report("cold start")
    starts = cold_starts(bundle, names, asked.threads)
    rows = [
        {
            "engine": name,
            "precision": artefacts[name].precision,
            "session": tuned.options(bundle, name).model_dump() if name in ENGINES else None,
            **own.figures(),
            "cold_start_s": start.median,
            "cold_start_s_iqr": [start.low, start.high],
            "stages_ms": {stage: Spread.of(taken).median for stage, taken in parts.items()},
        }
        for name, own, parts, start in zip(names, timed, stages, starts, strict=True)
    ]
    height, width, _ = decode(frame(bundle, names[0])).shape
    return {
        "bundle": bundle.path.name,
        "digest": bundle.digest,
        "frame": [height, width],
        "threads": threads,
        "seconds": asked.seconds,
        **circumstances(),
        "engines": rows,
    }


def circumstances(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """The conditions of a measurement: time, machine, versions of these packages, command."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "when": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "machine": {"cpu": machine.cpu(), "cores": cores(None), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **found},
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def cold_starts(bundle: Bundle, names: Sequence[str], threads: int | None = None) -> list[Spread]:
    """Seconds from the start of `ahl-runtime score` to its first decision. The engines take turns. BenchError."""
    taken: list[list[float]] = [[] for _ in names]
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "frame.png"
        for _ in range(ROUNDS):
            for name, own in zip(names, taken, strict=True):
                picture.write_bytes(frame(bundle, name))
                own.append(_start(bundle.path, name, picture, threads))
    return [Spread.of(own) for own in taken]


def _start(bundle: Path, engine: str, picture: Path, threads: int | None) -> float:
    command = [sys.executable, "-m", "ahl_runtime.cli.main", "score", "--bundle", str(bundle), "--as-exported"]
    command += ["--engine", engine, *(["--threads", str(threads)] if threads else []), str(picture)]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        line = process.stdout.readline() if process.stdout else b""
        taken = time.perf_counter() - begun
        _, stderr = process.communicate()
    if b'"decision"' not in line:
        raise BenchError(f"{engine}: no first decision ({(stderr or line).decode(errors='replace').strip()})")
    return taken


def as_text(found: dict[str, Any]) -> list[str]:
    """The figures as text: one line on the conditions, and a table."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "engine": lambda r: str(r["engine"]),
        "p50 ms (IQR)": lambda r: f"{r['score_ms_p50']:.1f} ({r['score_ms_iqr'][0]:.1f} to {r['score_ms_iqr'][1]:.1f})",
        "p99 ms": lambda r: f"{r['score_ms_p99']:.1f}",
        "frames/s": lambda r: f"{r['frames_per_second']:.1f}, {r['saturated_by']}",
        "MB (peak)": lambda r: "?" if r["rss_mb"] is None else f"{r['rss_mb']:.0f} ({r['rss_peak_mb']:.0f})",
        "cold start s": lambda r: f"{r['cold_start_s']:.2f}",
        "decode + session + rest ms": lambda r: " + ".join(f"{ms:.1f}" for ms in r["stages_ms"].values()),
    }
    rows = [list(columns), *([cell(row) for cell in columns.values()] for row in found["engines"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    height, width = found["frame"]
    place = found["machine"]
    where = f"{found['threads']} of {place['cores']} cores, {place['cpu']}"
    return [
        f"{found['bundle']}, frames of {width} x {height}, {where}",
        *("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
