"""The tests that are marked `gpu`: which passed, which failed, which could not run there and why."""

import subprocess
import sys
from xml.etree import ElementTree

from common import ROOT, Ask, Result, bar


def measure(ask: Ask) -> Result:
    """Counts, the names of those that failed, and the reasons of those that were skipped; `bars`."""
    files = [str(f) for f in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in f.read_text()]
    report = ask.folder / "junit.xml"
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--junitxml={report}"]
    subprocess.run([sys.executable, "-m", "pytest", *options, *files], cwd=ROOT, check=False, stdout=sys.stderr)
    passed, skipped, broken = 0, {}, []
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        bad = case.find("failure")
        if (error := case.find("error")) is not None:  # a file whose packages are not there, mostly
            skipped.setdefault(_last(error), []).append(name)
        elif bad is not None:
            broken.append({"test": name, "why": (bad.get("message") or "")[:300]})
        elif (left := case.find("skipped")) is not None:
            skipped.setdefault((left.get("message") or "")[:200], []).append(name)
        else:
            passed += 1
    found: Result = {"passed": passed, "broken": broken, "skipped": skipped}
    return found | {"bars": [bar("tests that failed", len(broken), 0)]}


def _last(error: ElementTree.Element) -> str:
    lines = [line for line in (error.text or error.get("message") or "").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("E ")]
    return (told or lines or ["collection failed"])[-1].removeprefix("E").strip()[:200]
