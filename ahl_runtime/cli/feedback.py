"""`ahl-runtime feedback`: decisions marked right or wrong, and handed on to training."""

from __future__ import annotations

from pathlib import Path

import click

from ahl_runtime.cli import options


@click.group()
def feedback() -> None:
    """Mark decisions right or wrong, and hand them to ahl train --feedback."""


@feedback.command()
@click.argument("decision", metavar="ID")
@click.argument("word", type=click.Choice(["right", "wrong", "good", "anomaly"]))
@click.option("--note", default="", help="Why.")
@click.option("--who", help="Who says so; the user of this process by default.")
@options.store
def mark(decision: str, word: str, note: str, who: str | None, store: Path) -> None:
    """Say whether a decision was right, or what its image is; the image is kept in the store.

    An unsure decision is marked good or anomaly. A later mark of the same decision replaces an earlier one.
    """
    from ahl_runtime.bundle.device_calibration import user
    from ahl_runtime.line.store.store import Store

    with Store(store) as opened:
        label = opened.mark(decision, word, who or user(), note)
    options.print_line({"id": decision, "label": label})


@feedback.command("list")
@click.option("--marked", is_flag=True, help="Only those that were marked.")
@options.store
def list_decisions(marked: bool, store: Path) -> None:
    """Print each decision as one JSON line, with its mark."""
    from ahl_runtime.line.store.store import Store

    with Store(store) as opened:
        for row in opened.decisions(marked=marked):
            options.print_line(row)


@feedback.command()
@click.argument("folder", type=options.PATH, metavar="DIR")
@options.store
def export(folder: Path, store: Path) -> None:
    """Write the marked images to a new folder, good/ and anomaly/, for ahl train --feedback."""
    from ahl_runtime.line.store.feedback import export as write
    from ahl_runtime.line.store.store import Store

    with Store(store) as opened:
        counts = write(opened, folder)
    options.print_line({"folder": str(folder), "good": counts["good"], "anomaly": counts["anomaly"]})
