"""Runs the sections, each in a process of its own and within its time, and writes gpu.json after each.

    tests/gpu/check [--small] [--only SECTION]... [--out gpu.json] [--minutes 6]

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
from common import ROOT, Result, cores, default_data

SECTIONS = {  # seconds at most
    "extraction": 70,
    "cdl": 90,
    "equality": 60,
    "train": 90,
    "tests": 60,
    "engines": 60,
    "grid": 3600,  # what is left
}
_SMALL = 300  # seconds at most, of each
_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "pillow")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="tests/gpu/check", description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="On the CPU, with small sizes: what CI runs.")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="This section; several times for more.")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="Figures of other sections stay in it.")
    parser.add_argument("--minutes", type=float, help="Of all sections, at most: 6, or 60 with --small.")
    parser.add_argument("--data", default=default_data(), help="As for ahl train.")
    parser.add_argument("--folder", type=Path, help="For what sections write; kept. A temporary one otherwise.")
    asked = parser.parse_args()
    if not asked.small and not torch.cuda.is_available():
        sys.stderr.write("error: there is no CUDA device here: --small runs every section on the CPU\n")
        return 2
    device = "cpu" if asked.small else "cuda"
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="ahl-gpu-"))
    end = time.monotonic() + 60 * (asked.minutes or (60 if asked.small else 6))
    found: Result = {"machine": _machine(device), "small": asked.small, "sections": {}}
    if asked.only and asked.out.exists():
        earlier = json.loads(asked.out.read_text())
        if earlier["machine"] == found["machine"] and earlier["small"] == asked.small:
            found = earlier
    for name in asked.only or SECTIONS:
        limit = min(_SMALL if asked.small else SECTIONS[name], end - time.monotonic())
        found["sections"][name] = result = _run(name, asked, device, folder / name, limit)
        _write(asked.out, found)
        sys.stdout.write(_told(name, result))
        sys.stdout.flush()
    if not asked.folder:
        shutil.rmtree(folder, ignore_errors=True)
    ran = [found["sections"][name] for name in asked.only or SECTIONS]
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
    found: Result = {"cores": cores(), "python": platform.python_version()}
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


def _write(target: Path, found: Result) -> None:
    aside = target.with_name(f".{target.name}.part")
    aside.write_text(json.dumps(found, indent=1) + "\n")
    aside.replace(target)


if __name__ == "__main__":
    sys.exit(main())
