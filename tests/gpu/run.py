"""Runs the sections, each in a process of its own and within its time, and writes gpu.json after each.

    tests/gpu/check [--small] [--only SECTION]... [--out benchmarks/gpu.json] [--minutes 6]

One that fails, or is too slow, says so; the others go on. Exit code 1 if a section failed or a bar does not hold.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from common import ROOT, Result, default_data

from ahl_runtime.engines.base import cores
from ahl_train.benchmark.page import write
from ahl_train.errors import RunError

SECTIONS = {  # seconds at most
    "extraction": 60,
    "cdl": 90,
    "equality": 90,
    "train": 120,
    "tests": 60,
    "engines": 60,
    "grid": 3600,  # what is left
}
_SMALL = 300  # seconds at most, of each
_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "pillow")


def main() -> int:
    """The exit code: 0, 1 where a section failed or a bar does not hold, 2 where it could not begin."""
    parser = argparse.ArgumentParser(prog="tests/gpu/check", description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="On the CPU, with small sizes: what CI runs.")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="This section; several times for more.")
    parser.add_argument("--out", type=Path, help="benchmarks/gpu.json, or build/gpu-small.json with --small.")
    parser.add_argument("--minutes", type=float, help="Of all sections, at most: 6, or 60 with --small.")
    parser.add_argument("--data", default=default_data(), help="elpv, or elpv:DIR, as for ahl train.")
    parser.add_argument("--folder", type=Path, help="For what sections write; kept. A temporary one otherwise.")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if not asked.small and not torch.cuda.is_available():
            raise RefusedError("there is no CUDA device here: --small runs every section on the CPU")
        if not asked.data.startswith("elpv"):
            raise RefusedError(f"--data is {asked.data!r}: the sections know ELPV alone, give elpv or elpv:DIR")
        device = "cpu" if asked.small else "cuda"
        out = asked.out or ROOT / ("build/gpu-small.json" if asked.small else "benchmarks/gpu.json")
        found = _begin(out, {"machine": _machine(device), "small": asked.small, "sections": {}}, bool(asked.only))
        if asked.folder:
            return _sections(asked, device, found, out, asked.folder.resolve())
        with tempfile.TemporaryDirectory(prefix="ahl-gpu-", ignore_cleanup_errors=True) as folder:
            return _sections(asked, device, found, out, Path(folder))
    except RefusedError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: sections that were done are kept\n")
        return 128 + signal.SIGINT


class RefusedError(Exception):
    """What keeps the check from beginning, and the way out."""


def _begin(out: Path, new: Result, some: bool) -> Result:
    """The figures that sections are added to: with ``some`` those of the file. It is seen that they can be written."""
    found = new
    if some and out.exists():
        try:
            found = json.loads(out.read_text())
            made = {key: found[key] for key in ("machine", "small")}
            found["sections"].keys()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RefusedError(
                f"{out} does not hold figures of this check ({error!r}): choose another --out"
            ) from error
        if made != {key: new[key] for key in made}:
            raise RefusedError(f"{out} holds figures of another machine, other versions or sizes: choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.touch()
        else:
            _save(found, out)
    except (OSError, RunError) as error:
        raise RefusedError(f"{out} cannot be written ({error}): choose another --out") from error
    return found


def _sections(asked: argparse.Namespace, device: str, found: Result, out: Path, folder: Path) -> int:
    """Run them into ``found`` and ``out``; the exit code."""
    minutes = asked.minutes if asked.minutes is not None else 60 if asked.small else 6
    end = time.monotonic() + 60 * minutes
    wanted = dict.fromkeys(asked.only or SECTIONS)
    for name in wanted:
        limit = min(_SMALL if asked.small else SECTIONS[name], end - time.monotonic())
        found["sections"][name] = result = _run(name, asked, device, folder / name, limit)
        _save(found, out)
        sys.stdout.write(_told(name, result))
        sys.stdout.flush()
    ran = [found["sections"][name] for name in wanted]
    return int(any("failed" in one or not all(b["holds"] for b in one["bars"]) for one in ran))


def _run(name: str, asked: argparse.Namespace, device: str, folder: Path, limit: float) -> Result:
    """What a section found, or why it failed; and the seconds that it took, its start included."""
    if limit < 10:
        return {"failed": "no time was left", "seconds": 0.0}
    if name != "grid":
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    words = [name, device, "small" if asked.small else "whole", asked.data, str(folder), str(limit)]
    started = time.monotonic()
    log = folder / "log"
    with log.open("w") as file:
        section = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "gpu" / "section.py"), *words],
            stdout=file,
            stderr=file,
            start_new_session=True,  # so that what it started ends with it
            env={**os.environ, "AHL_CACHE": str(folder / "ahl")},
        )
        try:
            code: int | None = section.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        except BaseException:
            _end(section)
            raise
    _end(section)
    taken = {"seconds": round(time.monotonic() - started, 1)}
    if code == 0 and result.exists():
        return {**json.loads(result.read_text()), **taken}
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    why = f"took longer than {limit:.0f} s" if code is None else f"ended with code {code}"
    return {"failed": f"{why}: {said[-1] if said else 'nothing was said'}", "log": said[-20:], **taken}


def _end(section: subprocess.Popen[bytes]) -> None:
    """Whatever is left of its session."""
    with suppress(ProcessLookupError):
        os.killpg(section.pid, signal.SIGKILL)
    section.wait()


def _machine(device: str) -> Result:
    """Of figures on a page: the card, its driver, the processor's cores, versions."""
    found: Result = {"cores": cores(None), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "memory_gb": round(card.total_memory / 1e9, 1), "cuda": torch.version.cuda}
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        if shutil.which(asked[0]):
            found["driver"] = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return found


def _told(name: str, result: Result) -> str:
    if "failed" in result:
        return f"{name}: FAILED after {result['seconds']:.0f} s: {result['failed']}\n"
    lines = [f"{name}: {result['seconds']:.0f} s"]
    for one in result["bars"]:
        word = "at least" if one["least"] else "at most"
        lines.append(
            f"  {'ok  ' if one['holds'] else 'MISS'} {one['name']}: {one['value']:.4g} ({word} {one['bound']:g})"
        )
    return "\n".join(lines) + "\n"


def _save(found: Result, out: Path) -> None:
    write(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
