"""The tests that are marked `gpu`: which passed, which failed, which could not run there and why."""

import subprocess
import sys
from collections import defaultdict
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from common import ROOT, Ask, Result, bar

_OPTIONS = ("-m", "gpu", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors")


def measure(ask: Ask) -> Result:
    """Counts, the names of those that failed, and the reasons of those that were skipped; `bars`."""
    found: Result = {"passed": 0, "broken": [], "skipped": defaultdict(list)}
    tests = ROOT / "tests"
    marked = sorted(file for file in tests.rglob("test_*.py") if "pytest.mark.gpu" in file.read_text())
    # A package's tests share what prepares them: where that lacks something there, the other packages' still run.
    for package, files in groupby(marked, key=lambda file: file.relative_to(tests).parts[0]):
        _run(package, list(files), ask.folder / f"{package}.xml", found)
    return found | {"bars": [bar("tests that failed", len(found["broken"]), 0)]}


def _run(package: str, files: list[Path], report: Path, found: Result) -> None:
    call = [sys.executable, "-m", "pytest", *_OPTIONS, f"--junitxml={report}", *map(str, files)]
    done = subprocess.run(call, cwd=ROOT, check=False, capture_output=True, text=True)
    sys.stderr.write(done.stdout + done.stderr)
    if not report.exists():
        found["skipped"][_last(done.stdout + done.stderr)].append(package)
        return
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if (error := case.find("error")) is not None:  # a file whose packages are not there, mostly
            found["skipped"][_last(error.text or "")].append(name)
        elif (failure := case.find("failure")) is not None:
            found["broken"].append({"test": name, "why": (failure.get("message") or "")[:300]})
        elif (left := case.find("skipped")) is not None:
            found["skipped"][(left.get("message") or "")[:200]].append(name)
        else:
            found["passed"] += 1


def _last(text: str) -> str:
    """What pytest says of an error, in its last line that is marked so."""
    lines = [line for line in text.splitlines() if line.strip()]
    told = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return (told or lines or ["it could not be collected"])[-1][:200]
