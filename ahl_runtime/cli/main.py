"""`ahl-runtime`, the device's command line: one line for each result, one line for each error."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahl_runtime.cli import console, options
from ahl_runtime.cli.bench import bench
from ahl_runtime.cli.calibrate import calibrate
from ahl_runtime.cli.feedback import feedback
from ahl_runtime.cli.serve import deploy, init, serve, status
from ahl_runtime.core.errors import ImageError, OutputError, RuntimeFault
from ahl_runtime.core.text import printable

if TYPE_CHECKING:
    from ahl_runtime.line.store.store import Store
    from ahl_runtime.score.batch import Result
    from ahl_runtime.score.scoring import Scorer

_NAME = "ahl-runtime"


def main() -> None:
    """Run the command line; exit code 0, 1 (a check failed), 2 (an error, said in one line on stderr)."""
    # OpenVINO imports its model converter, with a client of telemetry, unless there is none: nothing here converts.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    console.run(app, _NAME, _expected, click.ClickException, click.exceptions.Exit)


def _expected(error: Exception) -> bool:
    from calibration import CalibrationError  # here: it brings numpy, which --help does not need

    return isinstance(error, RuntimeFault | CalibrationError)


@click.group(name=_NAME, invoke_without_command=True)
@click.option("--version", is_flag=True, help="Print the version and exit.")
@click.pass_context
def app(context: click.Context, version: bool) -> None:
    """Score images with an .ahl bundle on the device."""
    if version:
        from importlib.metadata import version as installed

        click.echo(f"{_NAME} {installed('ahl')}")
        context.exit()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@app.command()
@click.argument("images", nargs=-1, required=True, type=options.PATH, metavar="IMAGE_OR_FOLDER...")
@options.bundle
@click.option("--maps", type=options.PATH, help="Folder for a heat-map overlay (PNG) of each image.")
@click.option(
    "--fdr",
    type=float,
    metavar="Q",
    help="Decide on all images together, so that at most a share Q of the rejected ones is normal, on average.",
)
@click.option("--store", type=options.PATH, metavar="FILE", help="Keep each decision in this SQLite file.")
@options.source_name
@click.option("--as-exported", is_flag=True, help="The bundle's own thresholds, whatever the device calibrated.")
@options.trust
@options.engine
@options.threads
def score(
    images: tuple[Path, ...],
    bundle: Path,
    maps: Path | None,
    fdr: float | None,
    store: Path | None,
    source_name: str,
    as_exported: bool,
    trust: Path | None,
    engine: str | None,
    threads: int | None,
) -> None:
    """Print one JSON line for each image: its score, p-value, decision and milliseconds.

    An image that cannot be scored gets a line with "error"; the others go on, and the exit code is 2.
    """
    from ahl_runtime.bundle.device_calibration import DEFAULT
    from ahl_runtime.core.decode import iter_images
    from ahl_runtime.score import batch
    from ahl_runtime.score.scoring import Scorer

    paths = list(iter_images(images))
    targets = _map_targets(maps, paths) if maps else [None] * len(paths)
    chosen = None if as_exported else source_name
    scorer = Scorer(options.open_trusted(bundle, trust), engine, threads=threads, source=chosen)
    with _opened(store) as kept:
        results = batch.score_files(scorer, paths, "" if source_name == DEFAULT else source_name)
        if fdr is not None:
            results = batch.decide_together(scorer, results, fdr, maps=maps is not None)
        failed = 0
        for result, target in zip(results, targets, strict=True):
            failed += not _tell(result, target, scorer, kept, fdr)
    if failed:
        console.fail(f"{failed} of {len(paths)} images could not be scored: see their lines")


@app.command()
@click.argument("bundle", type=options.PATH, metavar="BUNDLE")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON line.")
@options.trust
@options.threads
def check(bundle: Path, as_json: bool, trust: Path | None, threads: int | None) -> None:
    """Re-score the bundle's reference frames with each engine here; exit code 1 if one of them differs.

    Calibrations that the device made for this bundle are read too; exit code 1 if one of them cannot be used.
    """
    from dataclasses import asdict

    from ahl_runtime.score import selfcheck

    opened = options.open_trusted(bundle, trust)
    report = selfcheck.check(opened, threads=threads)
    calibrations = selfcheck.calibrations(opened)
    passed = report.passed and all(c.error is None for c in calibrations)
    if as_json:
        fields = {"bundle": str(bundle), "digest": opened.digest, "passed": passed, "chosen": report.chosen}
        engines = [asdict(c) for c in report.checks]
        options.print_line(
            {**fields, "why": report.why, "engines": engines, "calibrations": [asdict(c) for c in calibrations]}
        )
    else:
        for c in report.checks:
            said = c.error or (
                f"{c.frames} frames, off by at most {c.largest:.1e} (limit {c.tolerance:.0e}), {c.ms:.1f} ms"
            )
            verdict = {True: "pass", False: "fail", None: "not here"}[c.passed]
            click.echo(printable(f"{c.engine}: {verdict}: {said}"))
        click.echo(printable(f"chosen: {report.why}"))
        for own in calibrations:
            click.echo(printable(f"source {own.source} on {own.artefact}: {own.said}"))
    click.get_current_context().exit(0 if passed else 1)


@contextmanager
def _opened(path: Path | None) -> Iterator[Store | None]:
    if path is None:
        yield None
        return
    from ahl_runtime.line.store.store import Store

    with Store(path, create=True) as store:
        yield store


def _tell(result: Result, target: Path | None, scorer: Scorer, store: Store | None, fdr: float | None) -> bool:
    """Keep, print and draw a result; False if the image could not be scored."""
    from ahl_runtime.score import batch

    if isinstance(result, batch.FailedFile):
        options.print_line({"image": str(result.path), "error": result.error})
        return False
    decision = result.decision
    line: dict[str, Any] = {"image": str(result.path)}
    if store is not None:
        line["id"] = store.record(decision, result.path, batch.digest(result.path), scorer.engine.name)
    line |= {
        "score": decision.score,
        "p_value": decision.p_value,
        "decision": decision.verdict,
        "threshold": decision.threshold if math.isfinite(decision.threshold) else None,
        **({"fdr": fdr} if fdr is not None else {}),
        "calibration": decision.calibration,
        "ms": round(result.ms, 3),
    }
    options.print_line(line)
    if target is not None:
        from ahl_runtime.score.overlay import write_picture

        write_picture(target, result.pixels(), decision, scorer.map_range)
    return True


def _map_targets(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Where each image's overlay goes: the images' own folders, mirrored; never over an image."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: not a folder: choose another for the maps")
    given = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (links keep the names that they were given)
    try:
        root = os.path.commonpath([path.parent for path in given])
    except ValueError as error:
        raise ImageError(f"the images lie on several drives ({error}): score them apart") from error
    targets = [
        folder / path.relative_to(root).with_name(path.name if path.suffix == ".png" else f"{path.name}.png")
        for path in given
    ]
    overwritten = {target.resolve() for target in targets} & {path.resolve() for path in given}
    if overwritten:
        raise OutputError(f"{min(overwritten)}: this image would be overwritten by its map: choose another folder")
    return targets


app.add_command(bench)
app.add_command(calibrate)
app.add_command(feedback)
app.add_command(serve)
app.add_command(init)
app.add_command(status)
app.add_command(deploy)

if __name__ == "__main__":
    main()
