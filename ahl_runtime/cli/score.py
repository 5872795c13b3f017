"""`ahl-runtime score`: one line of JSON for each image."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ahl_runtime.cli import console, options
from ahl_runtime.core.errors import ImageError, OutputError

if TYPE_CHECKING:
    from ahl_runtime.line.store.store import Store
    from ahl_runtime.score.batch import Result
    from ahl_runtime.score.scoring import Scorer


def score(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Images, and folders that hold images.")
    ],
    bundle: options.BundleOption,
    maps: Annotated[
        Path | None, typer.Option(help="Folder for the heat map of each image, drawn over the image (PNG).")
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            metavar="Q",
            help="Decide on all images together: on average, at most the share Q of the rejected images is normal.",
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each decision to this SQLite file too.")
    ] = None,
    source_name: options.SourceNameOption = "default",
    as_exported: Annotated[
        bool, typer.Option("--as-exported", help="Use the thresholds of the bundle, not those calibrated here.")
    ] = False,
    trust: options.TrustOption = None,
    engine: options.EngineOption = None,
    threads: options.ThreadsOption = None,
) -> None:
    """Score images: print one JSON line for each.

    The line holds the score, the p-value, the decision and the time in milliseconds. An image that cannot be scored
    gets a line with "error", the others are scored, and the exit code is 2.
    """
    from ahl_runtime.bundle.device_calibration import DEFAULT
    from ahl_runtime.score import batch
    from ahl_runtime.score.scoring import Scorer

    asked = batch.find_files(images)
    targets = _map_targets(maps, [item for item in asked if isinstance(item, Path)]) if maps else {}
    chosen = None if as_exported else source_name
    scorer = Scorer(options.open_trusted(bundle, trust), engine, threads=threads, source=chosen)
    if maps:
        _check_writable(maps)
    with _opened(store) as kept:
        results = batch.score_files(scorer, asked, "" if source_name == DEFAULT else source_name)
        if fdr is not None:
            results = batch.decide_together(scorer, results, fdr, maps=maps is not None)
        failed = sum(not _report(result, targets, scorer, kept, fdr) for result in results)
    if failed:
        console.fail(f"{failed} of {len(asked)} images could not be scored: see their lines")


@contextmanager
def _opened(path: Path | None) -> Iterator[Store | None]:
    if path is None:
        yield None
        return
    from ahl_runtime.line.store.store import Store

    with Store(path, create=True) as store:
        yield store


def _report(
    result: Result, targets: Mapping[Path, Path], scorer: Scorer, store: Store | None, fdr: float | None
) -> bool:
    """Store, print and draw a result; False if the image could not be scored."""
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
    if target := targets.get(result.path):
        from ahl_runtime.score.overlay import write_picture

        write_picture(target, result.pixels(), decision, scorer.map_range)
    return True


def _map_targets(folder: Path, paths: Sequence[Path]) -> dict[Path, Path]:
    """The file for the heat map of each image: `folder` mirrors the folders of the images. OutputError, ImageError.

    OutputError also if a heat map would overwrite one of the images.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: not a folder: choose another for the maps")
    given = {path: Path(os.path.abspath(path)) for path in paths}  # noqa: PTH100 (links keep the names they were given)
    try:
        root = os.path.commonpath([path.parent for path in given.values()])
    except ValueError as error:
        raise ImageError(f"the images are on several drives ({error}): score each drive separately") from error
    targets = {
        path: folder / whole.relative_to(root).with_name(whole.name if whole.suffix == ".png" else f"{whole.name}.png")
        for path, whole in given.items()
    }
    overwritten = {target.resolve() for target in targets.values()} & {path.resolve() for path in given}
    if overwritten:
        raise OutputError(f"{min(overwritten)}: this image would be overwritten by its map: choose another folder")
    return targets


def _check_writable(folder: Path) -> None:
    """Make the folder and write to it, so that minutes of scoring do not end in an error. OutputError."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}): choose another") from error
