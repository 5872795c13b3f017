"""`ahl train`: a run from normal images and a few anomalies."""

from pathlib import Path
from typing import Annotated

import typer

from ahl_export.cli import extras, options
from ahl_runtime.cli import console
from ahl_train.systems import DEFAULT_SYSTEM, SYSTEMS


def train(
    data: options.DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    system: Annotated[str, typer.Option(help=f"One of {', '.join(SYSTEMS)}.")] = DEFAULT_SYSTEM,
    shots: options.ShotsOption = 10,
    seed: options.SeedOption = 0,
    setting: Annotated[str, typer.Option(help="general or hard.")] = "general",
    seen_class: Annotated[
        str | None, typer.Option(help="The one anomaly class to learn from, in the hard setting.")
    ] = None,
    calibrate: Annotated[
        str,
        typer.Option(
            help="split: calibrate on held-out normals. cross: train on all normals and score each out of fold. "
            "auto: cross for ahl-density if held-out normals would be too few for 1% at 95%, else split."
        ),
    ] = "auto",
    folds: Annotated[
        int | None,
        typer.Option(help="Number of folds of --calibrate cross. By default 5 for AHL(Density), 10 for the others."),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option(help="Number of held-out normals for the threshold. By default a third or more, at most 473."),
    ] = None,
    feedback: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Train on marked images too: a folder of `ahl-runtime feedback export`."),
    ] = None,
    backbone: options.BackboneOption = options.BACKBONE,
    backbone_weights: options.WeightsOption = None,
    schedule: options.ScheduleOption = "auto",
    epochs: options.EpochsOption = None,
    clusters: Annotated[int, typer.Option(help="Number of clusters (K) of HADG.")] = 3,
    grouping: Annotated[str, typer.Option(help="clusters (HADG) or random (Table 4).")] = "clusters",
    pseudo: Annotated[
        str, typer.Option(help="Pseudo anomalies: cutmix, cutpaste, draem, separated by commas; or none.")
    ] = "cutmix,cutpaste,draem",
    overlap: Annotated[str, typer.Option(help="none, query, support or both (Table 5).")] = "none",
    importance: Annotated[bool, typer.Option(help="Weight the base models by psi (CDL+).")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last finished epoch.")] = False,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(help="Precision of the features: float16, float32, or auto (float16 on a GPU, else float32)."),
    ] = "auto",
    cache: options.CacheOption = None,
) -> None:
    """Train on normal images and a few anomalies, and write a run."""
    extras.require("train", "train")
    from ahl_train.api import train as run

    say = console.say_progress
    finished = run(
        data,
        out,
        resume=resume,
        cache=cache,
        device=device,
        precision=precision,
        report=say,
        system=system,
        shots=shots,
        seed=seed,
        setting=setting,
        seen_class=seen_class,
        calibrate=calibrate,
        calibration=calibration,
        folds=folds,
        feedback=feedback,
        backbone=backbone,
        backbone_weights=backbone_weights,
        schedule=schedule,
        epochs=epochs,
        clusters=clusters,
        grouping=grouping,
        augmentations=() if pseudo == "none" else tuple(pseudo.split(",")),
        overlap=overlap,
        importance=importance,
    )
    say(f"trained: {finished.folder}; next: ahl export {finished.folder} --out {finished.folder.name}.ahl")
