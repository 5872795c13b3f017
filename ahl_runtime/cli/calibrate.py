"""`ahl-runtime calibrate`: thresholds from the line's own normals, shown first, then put in force or undone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahl_runtime.cli import options
from ahl_runtime.core.errors import ConfigError, ImageError
from ahl_runtime.core.text import printable

if TYPE_CHECKING:
    from ahl_runtime.score.recalibrate import Image, Proposal


@click.command()
@options.bundle
@click.option("--source", metavar="PLACE", help=f"Normal frames: a folder, or {options.PLACES}.")
@click.option("--config", type=options.PATH, metavar="FILE", help="The line's settings: --source names one of them.")
@click.option("--frames", type=click.IntRange(min=2), default=300, show_default=True, help="At most so many frames.")
@click.option(
    "--every",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Between frames of a camera, so that they are of different parts.",
)
@click.option(
    "--source-name",
    metavar="NAME",
    help="Whose thresholds they become, such as a camera's or a product's; by default those of every source without "
    "its own, and with --config that source's.",
)
@click.option("--alpha", type=float, help="False-reject rate to promise; the one in force by default.")
@click.option("--confidence", type=float, help="How sure; the one in force by default.")
@click.option("--tail", is_flag=True, help="Too few frames for alpha: fit a tail, a model.")
@click.option("--yes", is_flag=True, help="Put it in force without asking.")
@click.option("--undo", is_flag=True, help="Go back to the calibration before the one in force.")
@click.option("--who", help="Who does it, for the audit; the user of this process by default.")
@click.option("--why", default="", help="Why, for the audit.")
@options.trust
@options.engine
@options.threads
def calibrate(
    bundle: Path,
    source: str | None,
    config: Path | None,
    frames: int,
    every: float,
    source_name: str | None,
    alpha: float | None,
    confidence: float | None,
    tail: bool,
    yes: bool,
    undo: bool,
    who: str | None,
    why: str,
    trust: Path | None,
    engine: str | None,
    threads: int | None,
) -> None:
    """Set the thresholds anew from the line's own normal frames.

    What changes is shown first. The calibration goes beside the bundle, into BUNDLE.calibrations, and never into it;
    older ones stay there, and audit.jsonl has a line for each change.
    """
    if undo == (source is not None):
        raise click.UsageError("Give --source PLACE, or --undo alone")
    from ahl_runtime import engines
    from ahl_runtime.bundle.device_calibration import DEFAULT, Change, SideFiles, user
    from ahl_runtime.score import recalibrate
    from ahl_runtime.score.decision import DecisionRule
    from ahl_runtime.score.scoring import Scorer

    name = source_name or (source if config and source else DEFAULT)
    opened = options.open_trusted(bundle, trust)
    files = SideFiles(opened)
    if source is None:
        artefact = engines.artefact(opened, engine or engines.available(opened)[0])
        undone = files.undo(artefact.engine, name, Change(who or user(), why, {}))
        click.echo(printable(f"undone: {undone}"))
        before = files.in_force(artefact.engine, name)
        rule = DecisionRule.of(opened, artefact, before)
        click.echo(f"in force: {rule.name}, threshold {_number(rule.threshold)}: {rule.promise}")
        return
    where, images = _images(source, bundle, config, frames, every)
    scorer = Scorer(opened, engine, threads=threads, source=name)
    with closing(images):
        proposal = recalibrate.propose(scorer, images, alpha=alpha, confidence=confidence, tail=tail)
    for line in _preview(proposal, where):
        click.echo(printable(line))
    if not yes and not _agreed():
        click.echo("nothing was written")
        return
    facts = {**_facts(proposal), "frames_from": where}
    side = files.add(scorer.artefact, name, proposal.new, Change(who or user(), why, facts))
    click.echo(printable(f"in force: {side.name}, written to {side.path}"))


def _images(
    source: str, bundle: Path, config: Path | None, most: int, every: float
) -> tuple[str, Generator[Image, None, None]]:
    """Where normal frames come from, for people, and at most so many of them. ConfigError, ImageError, SourceError."""
    from ahl_runtime.core.decode import iter_images
    from ahl_runtime.line.sources.collect import collect
    from ahl_runtime.score import recalibrate
    from ahl_runtime.service.config import load

    kind, _, place = source.partition(":")
    if config is None and (Path(source).is_dir() or not place or kind == "folder"):
        folder = Path(source if Path(source).is_dir() or not place else place)
        if not folder.is_dir():
            raise ImageError(f"{folder}: not a folder: give one of normal images, or {options.PLACES}")
        found = list(iter_images([folder]))
        return f"{len(found)} in {folder.absolute()}", recalibrate.decoded(recalibrate.evenly(found, most))
    placed = None if config else options.placed(source, 1)
    line = load(config, {"model": {"bundle": bundle}} | ({"source": [placed]} if placed else {}))
    name = placed["name"] if placed else source
    parts = {part.name: part for part in line.sources}
    if name not in parts:
        raise ConfigError(f"{config}: no source {name!r}: there is {', '.join(parts) or 'none'}")
    shown = re.sub(r"//[^/]*@", "//", source)  # without a camera's password
    return shown, collect(parts[name], most, every, lambda said: click.echo(printable(said), err=True))


def _preview(proposal: Proposal, where: str) -> list[str]:
    """The old and the new, one line each, and what either makes of the new frames."""
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
        return click.confirm("Put it in force?", default=False)
    except click.Abort:  # no one to ask, or Ctrl-C
        click.echo()
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
