"""`ahl-runtime`, the device's command line: one line for each result, one line for each error."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahl_runtime import console
from ahl_runtime.errors import ImageError, OutputError, RuntimeFault

if TYPE_CHECKING:
    from ahl_runtime.bundle import Bundle
    from ahl_runtime.scoring import Scorer

_NAME = "ahl-runtime"
_PATH = click.Path(path_type=Path)
_threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads for scoring; every core of this process by default.",
)
_trust = click.option(
    "--trust",
    type=_PATH,
    metavar="PUBKEY",
    help="Refuse a bundle that the owner of this key, a PEM file, did not sign.",
)
_engine = click.option("--engine", metavar="NAME", help="The engine, see check; the preferred one by default.")


def main() -> None:
    """Run the command line; exit code 0, 1 (a check failed), 2 (an error, said in one line on stderr)."""
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
@click.argument("images", nargs=-1, required=True, type=_PATH, metavar="IMAGE_OR_FOLDER...")
@click.option("--bundle", required=True, type=_PATH, help="The .ahl file.")
@click.option("--maps", type=_PATH, help="Folder for a heat-map overlay (PNG) of each image.")
@_trust
@_engine
@_threads
def score(
    images: tuple[Path, ...],
    bundle: Path,
    maps: Path | None,
    trust: Path | None,
    engine: str | None,
    threads: int | None,
) -> None:
    """Print one JSON line for each image: its score, p-value, decision and milliseconds.

    An image that cannot be scored gets a line with "error"; the others go on, and the exit code is 2.
    """
    from ahl_runtime.decode import iter_images

    paths = list(iter_images(images))
    targets = _map_targets(maps, paths) if maps else [None] * len(paths)
    scorer = _scorer(bundle, trust, engine, threads)
    failed = sum(not _score_one(scorer, path, target) for path, target in zip(paths, targets, strict=True))
    if failed:
        console.fail(f"{failed} of {len(paths)} images could not be scored: see their lines")


@app.command()
@click.argument("bundle", type=_PATH, metavar="BUNDLE")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON line.")
@_trust
@_threads
def check(bundle: Path, as_json: bool, trust: Path | None, threads: int | None) -> None:
    """Re-score the bundle's reference frames with each engine here; exit code 1 if one of them differs."""
    from dataclasses import asdict

    from ahl_runtime import selfcheck

    opened = _open(bundle, trust)
    report = selfcheck.check(opened, threads=threads)
    if as_json:
        fields = {"bundle": str(bundle), "digest": opened.digest, "passed": report.passed, "chosen": report.chosen}
        _print({**fields, "why": report.why, "engines": [asdict(c) for c in report.checks]})
    else:
        for c in report.checks:
            said = c.error or (
                f"{c.frames} frames, off by at most {c.largest:.1e} (limit {c.tolerance:.0e}), {c.ms:.1f} ms"
            )
            verdict = {True: "pass", False: "fail", None: "not here"}[c.passed]
            click.echo(console.printable(f"{c.engine}: {verdict}: {said}"))
        click.echo(console.printable(f"chosen: {report.why}"))
    click.get_current_context().exit(0 if report.passed else 1)


def _open(path: Path, trust: Path | None) -> Bundle:
    from ahl_runtime.bundle import open_bundle
    from ahl_runtime.signature import load_public

    return open_bundle(path, trust=load_public(trust) if trust else None)


def _scorer(path: Path, trust: Path | None, engine: str | None, threads: int | None) -> Scorer:
    from ahl_runtime.scoring import Scorer

    return Scorer(_open(path, trust), engine, threads=threads)


def _score_one(scorer: Scorer, path: Path, target: Path | None) -> bool:
    """Print an image's line; False if it could not be scored."""
    from ahl_runtime.decode import decode
    from ahl_runtime.types import Frame

    try:
        frame = Frame(decode(path), id=path.name, source=str(path.parent))
        start = time.perf_counter()
        decision = scorer.score(frame)
        ms = 1000 * (time.perf_counter() - start)
    except RuntimeFault as error:
        _print({"image": str(path), "error": str(error)})
        return False
    _print(
        {
            "image": str(path),
            "score": decision.score,
            "p_value": decision.p_value,
            "decision": decision.verdict,
            "threshold": decision.threshold if math.isfinite(decision.threshold) else None,
            "ms": round(ms, 3),
        }
    )
    if target is not None:
        from ahl_runtime.overlay import write_picture

        write_picture(target, frame.image, decision, scorer.map_range)
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


def _print(fields: dict[str, Any]) -> None:
    click.echo(json.dumps(fields, allow_nan=False))


if __name__ == "__main__":
    main()
