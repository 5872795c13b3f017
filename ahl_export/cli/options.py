"""Options that several commands of `ahl` share."""

from pathlib import Path
from typing import Annotated

import typer

from ahl_train.data.readers import READERS

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
AlphaOption = Annotated[float, typer.Option(help="False-reject rate to guarantee.")]
BackboneOption = Annotated[str, typer.Option(help="Name of a timm network.")]
CacheOption = Annotated[
    Path | None, typer.Option(help="Folder for cached features. By default $AHL_CACHE or ~/.cache/ahl.")
]
DataOption = Annotated[
    str, typer.Option(help=f"elpv, NAME:DIR with NAME of {', '.join(READERS)}, or a folder in the layout of MVTec AD.")
]
EpochsOption = Annotated[int | None, typer.Option(help="Number of epochs. By default that of the schedule.")]
PixelOption = Annotated[
    bool, typer.Option("--pixel", help="Evaluate the pixels of the anomaly maps too, where there are masks.")
]
ScheduleOption = Annotated[
    str, typer.Option(help="auto: the system's own, light or short. paper: the full schedule of the paper.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of all random numbers.")]
ShotsOption = Annotated[int, typer.Option(help="Number of labelled anomalies to learn from.")]
WeightsOption = Annotated[Path | None, typer.Option(help="File with the weights of the backbone.")]

BACKBONE = "tf_efficientnet_lite0"
