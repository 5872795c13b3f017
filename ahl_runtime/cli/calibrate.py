"""`ahl-runtime calibrate`: new thresholds from normal frames of the line. They are shown first, and then activated."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ahl_runtime.cli import console, options
from ahl_runtime.core.errors import ConfigError, ImageError
from ahl_runtime.core.text import without_password
from ahl_runtime.line.sources.kinds import placed, places

if TYPE_CHECKING:
    from ahl_runtime.bundle.bundle import Bundle
    from ahl_runtime.score.recalibrate import Image, Proposal


def calibrate(
    bundle: options.BundleOption,
    source: Annotated[
        str | None, typer.Option(metavar="PLACE", help=f"Normal frames: a folder, or {places()}.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings file of the line. --source then names one of its sources."),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Use at most this many frames.")] = 300,
    every: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Time between two frames of a camera, so that they show different parts."
        ),
    ] = 0.0,
    source_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Calibrate for this source alone, such as a camera or a product. By default the calibration is for "
            "every source without its own; with --config it is for the source that --source names.",
        ),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="False-reject rate to guarantee. By default that of the active calibration.")
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(help="Confidence level of the false-reject guarantee. By default that of the active calibration."),
    ] = None,
    tail: Annotated[
        bool, typer.Option("--tail", help="Fit a tail model if there are too few frames for alpha.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Activate the calibration without asking.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Roll back to the calibration before the active one.")] = False,
    who: options.WhoOption = None,
    why: Annotated[str, typer.Option(show_default=False, help="Reason, for the record.")] = "",
    trust: options.TrustOption = None,
    engine: options.EngineOption = None,
    threads: options.ThreadsOption = None,
) -> None:
    """Set new thresholds from normal frames of the line.

    The old and the new thresholds are shown before the new ones are activated. Calibrations are kept in the folder
    BUNDLE.calibrations, with a line for each change in audit.jsonl. The bundle itself does not change.
    """
    if undo == (source is not None):
        raise console.UsageError("Give --source PLACE, or --undo alone")
    from ahl_runtime.bundle.device_calibration import DEFAULT, Change, SideFiles, user
    from ahl_runtime.score import recalibrate
    from ahl_runtime.score.scoring import Scorer

    name = source_name or (source if config and source else DEFAULT)
    opened = options.open_trusted(bundle, trust)
    if source is None:
        _roll_back(opened, engine, name, who, why)
        return
    where, images = _images(source, bundle, config, frames, every)
    scorer = Scorer(opened, engine, threads=threads, source=name)
    with closing(images):
        proposal = recalibrate.propose(scorer, images, alpha=alpha, confidence=confidence, tail=tail)
    for line in _preview(proposal, where):
        console.say(line)
    if not yes and not _agreed():
        typer.echo("nothing was written")
        return
    change = Change(who or user(), why, {**_facts(proposal), "frames_from": where})
    side = SideFiles(opened).add(scorer.artefact, name, proposal.new, change)
    console.say(f"activated: {side.name}, written to {side.path}; a running line uses it after its next start")


def _roll_back(bundle: Bundle, engine: str | None, name: str, who: str | None, why: str) -> None:
    """Roll back the calibration of the source `name` and print which one is active now."""
    from ahl_runtime import engines
    from ahl_runtime.bundle.device_calibration import Change, SideFiles, user
    from ahl_runtime.score.decision import DecisionRule

    files = SideFiles(bundle)
    artefact = engines.artefact(bundle, engine or engines.available(bundle)[0])
    undone = files.undo(artefact.engine, name, Change(who or user(), why, {}))
    console.say(f"rolled back: {undone}")
    rule = DecisionRule.of(bundle, artefact, files.active(artefact.engine, name))
    typer.echo(f"active: {rule.name}, threshold {_number(rule.threshold)}: {rule.promise}")


def _images(
    source: str, bundle: Path, config: Path | None, most: int, every: float
) -> tuple[str, Generator[Image, None, None]]:
    """The origin of the normal frames as text, and at most `most` of them. ConfigError, ImageError, SourceError."""
    from ahl_runtime.core.decode import iter_images
    from ahl_runtime.line.sources.collect import collect
    from ahl_runtime.score import recalibrate
    from ahl_runtime.service.config import load

    kind, _, place = source.partition(":")
    if config is None and (Path(source).is_dir() or not place or kind == "folder"):
        folder = Path(source if Path(source).is_dir() or not place else place)
        if not folder.is_dir():
            raise ImageError(f"{folder}: not a folder: give one of normal images, or {places()}")
        found = list(iter_images([folder]))
        return f"{len(found)} in {folder.absolute()}", recalibrate.decoded(recalibrate.evenly(found, most))
    given = None if config else placed(source, 1)
    line = load(config, {"model": {"bundle": bundle}} | ({"source": [given]} if given else {}))
    name = given["name"] if given else source
    sources = {settings.name: settings for settings in line.sources}
    if name not in sources:
        raise ConfigError(f"{config}: no source {name!r}: there is {', '.join(sources) or 'none'}")
    return without_password(source), collect(sources[name], most, every, console.say_progress)


def _preview(proposal: Proposal, where: str) -> list[str]:
    """One line for the old and one for the new thresholds, and the decisions of both on the new frames."""
    old, new = proposal.old, proposal.new
    left = f", {len(proposal.left_out)} unreadable and left out" if proposal.left_out else ""
    return [
        f"frames: {new.n} of {where}{left}",
        *(f"left out: {reason}" for reason in proposal.left_out[:5]),
        f"old ({old.name}): threshold {_number(old.threshold)}, unsure above {_number(old.unsure_threshold)}: "
        f"{old.promise}",
        f"new: threshold {_number(new.threshold)}, unsure above {_number(new.unsure_threshold)}: "
        f"{new.promise.sentence}",
        f"of the {new.n} new frames: the old {_counts(proposal.by_old)}, the new {_counts(proposal.by_new)}",
    ]


def _agreed() -> bool:
    try:
        return typer.confirm("Activate it?", default=False)
    except typer.Abort:  # no one to ask, or Ctrl-C
        typer.echo()
        return False


def _facts(proposal: Proposal) -> dict[str, Any]:
    old, new = proposal.old, proposal.new
    return {
        "before": old.name,
        "old_threshold": _finite(old.threshold),
        "new_threshold": _finite(new.threshold),
        "alpha": new.alpha,
        "confidence": new.confidence,
        "normals": new.n,
        "left_out": len(proposal.left_out),
        "rejected_by_old": proposal.by_old["reject"],
        "promise": new.promise.sentence,
    }


def _counts(counts: Counter[str]) -> str:
    return f"rejects {counts['reject']} and is unsure of {counts['unsure']}"


def _number(threshold: float) -> str:
    return f"{threshold:.6g}" if math.isfinite(threshold) else "none (nothing is rejected)"


def _finite(threshold: float) -> float | None:
    return threshold if math.isfinite(threshold) else None
