"""`ahl export`: a bundle from a run."""

from pathlib import Path
from typing import Annotated

import typer

from ahl_export.cli import extras, options
from ahl_export.options import ExportOptions, Hardware, Precision
from ahl_runtime.cli import console


def export(
    run: options.RunArgument,
    out: Annotated[Path, typer.Option(help="The bundle to write, NAME.ahl.")],
    alpha: options.AlphaOption = 0.01,
    confidence: Annotated[float, typer.Option(help="Confidence level of the false-reject guarantee.")] = 0.95,
    tail: Annotated[
        bool, typer.Option("--tail", help="Fit a tail model if there are too few normals for alpha.")
    ] = False,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Add a model for OpenVINO (IR), with float16 weights.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Add an INT8 graph for ONNX Runtime.")] = False,
    trt: Annotated[
        bool,
        typer.Option("--trt", help="Add a graph and a build recipe for TensorRT; with a GPU here also the engine."),
    ] = False,
    trt_compat: Annotated[
        bool,
        typer.Option(
            "--trt-compat", help="Build an engine that later TensorRT versions and the lean runtime can load."
        ),
    ] = False,
    trt_hardware_compat: Annotated[
        Hardware,
        typer.Option(
            help="GPUs that can load the engine. none: this type. same: the same compute capability. ampere: Ampere "
            "and later."
        ),
    ] = "none",
    trt_rtx: Annotated[
        str | None,
        typer.Option(metavar="GPUS", help="Add models for TensorRT for RTX, for GPUs such as sm86,sm89,sm120."),
    ] = None,
    trt_precision: Annotated[Precision, typer.Option(help="Precision of the backbone in TensorRT.")] = "float16",
    triton: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Add the graph to this Triton model repository too.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Sign the bundle with this private key. `ahl keygen` makes one."),
    ] = None,
) -> None:
    """Write a bundle from a finished run.

    The graph of the bundle is compared with the model. The thresholds come from normal images that the model was not
    trained on.
    """
    wanted = {"openvino": openvino, "tensorrt-rtx": trt_rtx is not None, "signing": sign is not None}
    extras.require("export", "export", *(extra for extra, asked in wanted.items() if asked))
    from ahl_export.pipeline import export as write

    settings = ExportOptions(
        alpha=alpha,
        confidence=confidence,
        tail=tail,
        openvino=openvino,
        int8=int8,
        trt=trt,
        trt_compat=trt_compat,
        trt_hardware_compat=trt_hardware_compat,
        trt_rtx=() if trt_rtx is None else tuple(trt_rtx.split(",")),
        trt_precision=trt_precision,
        sign=sign,
        triton=triton,
    )
    path = write(run, out, settings, console.say_progress).path
    console.say_progress(f"written: {path}; next: ahl-runtime score --bundle {path} IMAGES")
