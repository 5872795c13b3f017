"""`ahl-runtime check`: compare the scores of this device with those of the workstation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ahl_runtime.cli import console, options

if TYPE_CHECKING:
    from ahl_runtime.score.selfcheck import Check, OwnCalibration, Report


def check(
    bundle: options.BundleArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")] = False,
    trust: options.TrustOption = None,
    threads: options.ThreadsOption = None,
) -> None:
    """Score the bundle's reference frames with each engine of this device.

    Exits with 1 if a score differs from the reference, or if a calibration that was made on this device cannot be used.
    """
    from ahl_runtime.score import selfcheck

    opened = options.open_trusted(bundle, trust)
    report = selfcheck.check(opened, threads=threads)
    calibrations = selfcheck.calibrations(opened)
    passed = report.passed and all(c.error is None for c in calibrations)
    if as_json:
        options.print_line(
            {
                "bundle": str(bundle),
                "digest": opened.digest,
                "passed": passed,
                "chosen": report.chosen,
                "why": report.why,
                "engines": [asdict(c) for c in report.checks],
                "calibrations": [asdict(c) for c in calibrations],
            }
        )
    else:
        for line in _as_text(report, calibrations):
            console.say(line)
    raise typer.Exit(0 if passed else 1)


def _as_text(report: Report, calibrations: Sequence[OwnCalibration]) -> Iterator[str]:
    for found in report.checks:
        verdict = {True: "pass", False: "fail", None: "not here"}[found.passed]
        yield f"{found.engine}: {verdict}: {found.error or _measured(found)}"
    yield f"chosen: {report.why}"
    for own in calibrations:
        yield f"source {own.source} on {own.artefact}: {own.text}"


def _measured(found: Check) -> str:
    return f"{found.frames} frames, off by at most {found.largest:.1e} (limit {found.tolerance:.0e}), {found.ms:.1f} ms"
