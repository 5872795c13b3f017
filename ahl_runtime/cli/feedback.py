"""`ahl-runtime feedback`: mark decisions right or wrong, and export the marked images as a folder for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ahl_runtime.cli import console, options

feedback = console.application(
    "Mark decisions right or wrong, and export the marked images for `ahl train --feedback`."
)


@feedback.command()
def mark(
    decision: Annotated[str, typer.Argument(metavar="ID", help="Id of the decision: see `feedback list`.")],
    word: Annotated[
        Literal["right", "wrong", "good", "anomaly"],
        typer.Argument(metavar="{right|wrong|good|anomaly}", help="What the decision was, or what the image is."),
    ],
    store: options.StoreOption,
    note: Annotated[str, typer.Option(show_default=False, help="Reason, for the record.")] = "",
    who: options.WhoOption = None,
) -> None:
    """Mark a decision right or wrong, or say what its image is.

    The store keeps a copy of the image. Mark an unsure decision good or anomaly. The last mark of a decision counts.
    """
    from ahl_runtime.bundle.device_calibration import user
    from ahl_runtime.line.store.store import Store

    with Store(store) as opened:
        label = opened.mark(decision, word, who or user(), note)
    options.print_line({"id": decision, "label": label})


@feedback.command("list")
def list_decisions(
    store: options.StoreOption,
    marked: Annotated[bool, typer.Option("--marked", help="Marked decisions alone.")] = False,
) -> None:
    """Print each decision and its mark as one JSON line."""
    from ahl_runtime.line.store.store import Store

    with Store(store) as opened:
        for row in opened.decisions(marked=marked):
            options.print_line(row)


@feedback.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    store: options.StoreOption,
) -> None:
    """Write the marked images into the folders good and anomaly, for `ahl train --feedback`."""
    from ahl_runtime.line.store.feedback import export as write
    from ahl_runtime.line.store.store import Store

    with Store(store) as opened:
        counts = write(opened, folder)
    options.print_line({"folder": str(folder), "good": counts["good"], "anomaly": counts["anomaly"]})
