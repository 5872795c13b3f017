"""The bench of the workstation. Each section is measured once and kept in a file, then written into a page."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ahl_export.errors import ExportError
from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.tuning.bench import PACKAGES, circumstances
from ahl_train.benchmark.page import write
from benchmarks.speed import page as pages
from benchmarks.speed import scoring, serving, start, training

SECTIONS = ("scoring", "serving", "training", "start")
_PACKAGES = (*PACKAGES, "anomalib", "timm", "torch")
Report = Callable[[str], None]


def bench(
    bundle: Path,
    out: Path,
    *,
    only: Sequence[str] = SECTIONS,
    page: Path | None = None,
    seconds: float = 10.0,
    report: Report = lambda line: None,
) -> list[Path]:
    """Measure the sections that are not in the folder `out` yet. Returns the paths of their files, one per section.

    `seconds`: for each measurement of a contestant. `page`: the page for the tables, between the markers of each
    section. ExportError for an unknown section or a damaged file. RuntimeFault, TrainError.
    """
    unknown = set(only) - set(SECTIONS)
    if unknown:
        raise ExportError(f"no section {', '.join(sorted(unknown))}: choose among {', '.join(SECTIONS)}")
    opened = open_bundle(bundle)
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "scoring": lambda: scoring.measure(opened, out / "models", seconds, report),
        "serving": lambda: serving.measure(opened, seconds, report),
        "training": lambda: training.measure(out / "training", report),
        "start": lambda: start.measure(opened),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out}: cannot be made ({error.strerror}): choose another folder") from error
    files = []
    for section in [s for s in SECTIONS if s in only]:
        file = out / f"{section}.json"
        if file.exists():
            report(f"{section}: already in {file}; delete the file to measure again")
        else:
            report(section)
            found = {"bundle": bundle.name, "digest": opened.digest, **circumstances(_PACKAGES), **measures[section]()}
            write(file, json.dumps(found, indent=1, allow_nan=False) + "\n")
        files.append(file)
        if page:
            pages.write_section(page, section, read(file))
    return files


def read(file: Path) -> dict[str, Any]:
    """The figures in the file of a section. ExportError."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f"{file}: cannot be read ({error}): delete it and measure again") from error
    return found
