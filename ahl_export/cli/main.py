"""`ahl`, the workstation's command line. Heavy imports are inside the commands: --help needs none of them."""

import json
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ahl_runtime.cli import console
from ahl_runtime.core.text import printable
from ahl_train.data.readers import READERS
from ahl_train.systems import DEFAULT_SYSTEM, SYSTEMS

app = typer.Typer(
    name="ahl",
    help="Learn to find defects no one has seen before, and export what was learned to a line-side device.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at datasets, or make one.")
app.add_typer(data_app, name="data")
benchmark_app = typer.Typer(help="Run a grid of systems, settings, shots and seeds, or write its table.")
app.add_typer(benchmark_app, name="benchmark")

_EXTRAS = {
    "train": ("torch", "torchvision", "timm", "sklearn", "rich"),
    "export": ("onnx", "onnxscript", "matplotlib", "jinja2"),
    "openvino": ("openvino",),
    "tensorrt-rtx": ("tensorrt_rtx",),
    "signing": ("cryptography",),
    "demo": ("elpv_dataset",),
    "dev": ("anomalib",),
}


# Every usage error's base. Some versions of typer carry click inside, some beside, so it is found by its child.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]


class MissingExtra(Exception):  # noqa: N818 (named for what it is)
    """A command whose extra is not installed."""


def main() -> None:
    """Run the command line; exit code 0, or 2 with one line on stderr."""
    console.run(typer.main.get_command(app), "ahl", _expected, _USAGE_ERROR, typer.Exit)


def _expected(error: Exception) -> bool:
    if isinstance(error, MissingExtra):
        return True
    from ahl_export.errors import ExportError
    from ahl_runtime.core.errors import RuntimeFault
    from ahl_train.errors import TrainError
    from calibration import CalibrationError

    return isinstance(error, CalibrationError | ExportError | RuntimeFault | TrainError)


def _require(command: str, *extras: str) -> None:
    missing = [e for e in extras if any(find_spec(package) is None for package in _EXTRAS[e])]
    if missing:
        wanted = ",".join(extras)
        raise MissingExtra(f"ahl {command} needs the extra [{missing[0]}]: pip install 'ahl[{wanted}]'")


def _say(line: str) -> None:
    typer.echo(printable(line), err=True)


DataOption = Annotated[
    str, typer.Option(help=f"elpv, NAME:DIR with NAME of {', '.join(READERS)}, or a folder in MVTec AD layout.")
]
CacheOption = Annotated[Path | None, typer.Option(help="Feature cache; $AHL_CACHE or ~/.cache/ahl by default.")]
AlphaOption = Annotated[float, typer.Option(help="False-reject rate that the threshold shall keep.")]


@app.command()
def train(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The run folder.")],
    system: Annotated[str, typer.Option(help=f"One of {', '.join(SYSTEMS)}.")] = DEFAULT_SYSTEM,
    shots: Annotated[int, typer.Option(help="Labelled anomalies to learn from.")] = 10,
    seed: int = 0,
    setting: Annotated[str, typer.Option(help="general or hard.")] = "general",
    seen_class: Annotated[str | None, typer.Option(help="The one anomaly class seen, in the hard setting.")] = None,
    calibrate: Annotated[
        str,
        typer.Option(
            help="split: on held-out normals; cross: all train, each is scored out of fold; auto: cross for ahl-density"
            " where those held out would be too few for 1% at 95%."
        ),
    ] = "auto",
    folds: Annotated[
        int | None, typer.Option(help="Folds of --calibrate cross; by default 5 for AHL(Density), else 10.")
    ] = None,
    calibration: Annotated[
        int | None, typer.Option(help="Normals held out for the threshold; by default a third or more, 473 at most.")
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Train too on what ahl-runtime feedback export wrote.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="A timm network.")] = "tf_efficientnet_lite0",
    backbone_weights: Annotated[Path | None, typer.Option(help="A file of its weights.")] = None,
    schedule: Annotated[
        str, typer.Option(help="auto: the system's own, light or short; or paper: the full one.")
    ] = "auto",
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the schedule's.")] = None,
    clusters: Annotated[int, typer.Option(help="K of HADG.")] = 3,
    grouping: Annotated[str, typer.Option(help="clusters (HADG) or random (Table 4).")] = "clusters",
    pseudo: Annotated[str, typer.Option(help="Which of cutmix,cutpaste,draem; none.")] = "cutmix,cutpaste,draem",
    overlap: Annotated[str, typer.Option(help="none, query, support or both (Table 5).")] = "none",
    importance: Annotated[bool, typer.Option(help="CDL+: weigh the base models by psi.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole epoch.")] = False,
    device: Annotated[str, typer.Option(help="auto (the GPU if there is one), cpu or cuda.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Of extracted features: auto (float16 on a GPU, else float32), float16 or float32.")
    ] = "auto",
    cache: CacheOption = None,
) -> None:
    """Learn g from normal images and a few anomalies."""
    _require("train", "train")
    from ahl_train.config import TrainConfig
    from ahl_train.training import train as run

    given = locals()
    settings = {f.name: given[f.name] for f in fields(TrainConfig) if f.name in given}
    settings["augmentations"] = () if pseudo == "none" else tuple(pseudo.split(","))
    where = {"cache": cache, "device": device, "precision": precision}
    finished = run(TrainConfig(**settings), out, resume=resume, **where, report=_say)
    _say(f"trained: {finished.folder}; next: ahl export {finished.folder} --out {finished.folder.name}.ahl")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    out: Annotated[Path, typer.Option(help="The bundle to write, NAME.ahl.")],
    alpha: AlphaOption = 0.01,
    confidence: Annotated[float, typer.Option(help="How sure the false-reject rate shall be kept.")] = 0.95,
    tail: Annotated[bool, typer.Option("--tail", help="Too few normals for alpha: fit a tail, a model.")] = False,
    openvino: Annotated[bool, typer.Option("--openvino", help="Carry OpenVINO's IR too, weights in float16.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Carry an INT8 graph for ONNX Runtime too.")] = False,
    trt: Annotated[
        bool, typer.Option("--trt", help="Carry a graph and a recipe for TensorRT too; a GPU here adds the engine.")
    ] = False,
    trt_compat: Annotated[
        bool, typer.Option("--trt-compat", help="An engine that later TensorRT versions and the lean runtime load.")
    ] = False,
    trt_hardware_compat: Annotated[
        str, typer.Option(help="GPUs of the engine: none but its own, same compute capability, or ampere and later.")
    ] = "none",
    trt_rtx: Annotated[
        str | None,
        typer.Option(metavar="GPUS", help="Compile for TensorRT for RTX too, for sm86,sm89,sm120 and so on."),
    ] = None,
    trt_precision: Annotated[str, typer.Option(help="float16 or float32, of the backbone in TensorRT.")] = "float16",
    triton: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Add the graph to a Triton model repository too.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign it with this private key, see ahl keygen.")
    ] = None,
) -> None:
    """Write the bundle: one graph, proven equal to the model, and thresholds from normals it never saw."""
    extras = {"openvino": openvino, "tensorrt-rtx": trt_rtx is not None, "signing": sign is not None}
    _require("export", "train", "export", *(extra for extra, wanted in extras.items() if wanted))
    _choose("--trt-precision", trt_precision, ("float16", "float32"))
    _choose("--trt-hardware-compat", trt_hardware_compat, ("none", "same", "ampere"))
    if (trt_compat or trt_hardware_compat != "none") and not trt:
        raise typer.BadParameter(
            "they say how --trt builds: give --trt too", param_hint="'--trt-compat', '--trt-hardware-compat'"
        )
    from ahl_export.backends.tensorrt_rtx import targets
    from ahl_export.pipeline import ArtefactChoice
    from ahl_export.pipeline import export as write

    wanted = ArtefactChoice(
        openvino=openvino,
        int8=int8,
        trt=trt,
        trt_rtx=() if trt_rtx is None else targets(trt_rtx),
        trt_precision=trt_precision,
        trt_compatible=trt_compat,
        trt_hardware=trt_hardware_compat,
    )
    rates = {"alpha": alpha, "confidence": confidence, "tail": tail}
    written = write(run, out, **rates, wanted=wanted, sign=sign, triton=triton, report=_say)
    if written.triton:
        _say(f"written: {written.triton}; next: tritonserver --model-repository={triton}")
    _say(f"written: {written.bundle.path}; next: ahl-runtime score --bundle {written.bundle.path} IMAGES")


@app.command()
def keygen(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="The file of the private key; KEY.pub is the public one.")],
) -> None:
    """Make a pair of Ed25519 keys: sign bundles with the one, let devices trust the other."""
    _require("keygen", "signing")
    from ahl_runtime.bundle.signature import generate

    public = generate(key)
    _say(f"written: {key}, to keep secret, and {public}; next: ahl export RUN --out NAME.ahl --sign {key}")


@app.command("inspect")
def inspect_bundle(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The .ahl file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: the manifest and the digest.")] = False,
    plots: Annotated[
        Path | None, typer.Option(help="Write plots of each artefact's calibration into a folder.")
    ] = None,
) -> None:
    """Print what a bundle holds: its artefacts, how each compared with the model, what each promises."""
    from ahl_export import inspection
    from ahl_runtime.bundle.bundle import open_bundle

    opened = open_bundle(bundle)
    if as_json:
        typer.echo(json.dumps(inspection.as_json(opened), allow_nan=False))
    else:
        for line in inspection.as_text(opened).splitlines():
            typer.echo(printable(line))
    if plots is not None:
        _require("inspect --plots", "export")
        from ahl_export.report.calibration_plots import write_plots

        for file in write_plots(opened, plots):
            _say(f"written: {file}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run, the bundle and the report.")] = Path("demo"),
    data: DataOption = "elpv",
    shots: int = 10,
    seed: int = 0,
    alpha: AlphaOption = 0.01,
    cache: CacheOption = None,
) -> None:
    """The whole road on real images: train, export, calibrate, score, look."""
    _require("demo", "train", "export", *(("demo",) if data == "elpv" else ()))
    from ahl_export.report.demo import demo as run

    typer.echo(run(out, data=data, shots=shots, seed=seed, alpha=alpha, cache=cache, report=_say))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    pixel: Annotated[bool, typer.Option("--pixel", help="The maps' pixels too, where there are masks.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """AUROC of a finished run on its test images."""
    _require("evaluate", "train")
    from ahl_train.api import evaluate as measure

    found = {key: value for key, value in asdict(measure(run, pixel=pixel)).items() if value is not None}
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for key, value in found.items():
            typer.echo(f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}")


@benchmark_app.callback(invoke_without_command=True)
def benchmark(
    context: typer.Context,
    data: Annotated[str | None, typer.Option(help="As for ahl train.")] = None,
    out: Annotated[Path | None, typer.Option(help="The bench's folder; what it holds is not run again.")] = None,
    setting: Annotated[str, typer.Option(help="general, hard, or both with a comma.")] = "general,hard",
    shots: Annotated[str, typer.Option(help="Numbers of labelled anomalies, with commas.")] = "1,10",
    systems: Annotated[
        str, typer.Option(help="Names and groups with commas: all, default, rivals (patchcore,padim; extra [rivals]).")
    ] = "default",
    seeds: Annotated[int, typer.Option(help="How many: 0, 1, ...")] = 3,
    schedule: Annotated[
        str, typer.Option(help="auto: the system's own, light or short; or paper: the full one.")
    ] = "auto",
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the schedule's.")] = None,
    epoch: Annotated[
        str,
        typer.Option(
            help="last: AUROC after the last epoch; best: beside it that of the best epoch, chosen on the test images, "
            "as the paper's code reports it. For comparison alone."
        ),
    ] = "last",
    pixel: Annotated[bool, typer.Option("--pixel", help="The maps' pixels too, where there are masks.")] = False,
    backbone: Annotated[str, typer.Option(help="A timm network.")] = "tf_efficientnet_lite0",
    backbone_weights: Annotated[Path | None, typer.Option(help="A file of its weights.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Processes of one thread each; by default one of all threads, or all of Ray's cores."),
    ] = None,
    ray: Annotated[str | None, typer.Option(help="Run on the Ray cluster at this address; local: a new one.")] = None,
    cache: CacheOption = None,
) -> None:
    """Run a grid of systems, settings, shots and seeds; `ahl benchmark table DIR` writes its table."""
    if context.invoked_subcommand:
        return
    for name, value in (("data", data), ("out", out)):
        if value is None:
            raise typer.BadParameter(f"Missing option '--{name}'", context)
    _require("benchmark", "train")
    from ahl_train.benchmark.grid import Grid, choose_systems, run_grid

    grid = Grid(
        data=data,
        settings=_listed(setting),
        shots=_numbers(shots),
        systems=choose_systems(systems),
        seeds=seeds,
        schedule=schedule,
        epochs=epochs,
        epoch=epoch,
        pixel=pixel,
        backbone=backbone,
        backbone_weights=backbone_weights,
    )
    results = run_grid(grid, out, cache=cache, jobs=jobs, ray=ray, report=_say)
    _say(f"written: {results}; next: ahl benchmark table {out}")


@benchmark_app.command("table")
def benchmark_table(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="The bench's folder, or several.")],
    page: Annotated[Path | None, typer.Option(help="A page to write the table into, between its markers.")] = None,
) -> None:
    """Of one bench, write table.md, table.html and table.csv: ours beside the paper's figures.

    Of several, print one table of all sets as Markdown, or write it into the page: a row a set, a column a system.
    """
    _require("benchmark table", "train")
    if len(folders) > 1:
        from ahl_train.benchmark.sets import gather, sets_to_markdown, write_sets

        typer.echo(str(write_sets(folders, page)) if page else sets_to_markdown(gather(folders)), nl=page is not None)
        return
    from ahl_train.benchmark.table import write_tables

    for file in write_tables(folders[0], page):
        typer.echo(str(file))


def _choose(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise typer.BadParameter(f"{value!r}: choose among {', '.join(choices)}", param_hint=f"'{option}'")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _listed(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give numbers with commas, such as 1,10", param_hint="'--shots'") from None


@data_app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="A published set: mvtec, aitex, sdd, elpv, ...")],
    directory: Annotated[Path | None, typer.Argument(metavar="DIR", help="Where it lies; not for elpv.")] = None,
) -> None:
    """Compare a dataset's counts with Table 1's; exit code 1 if they differ."""
    _require("data check", "train")
    from ahl_train.data.readers import check

    report = check(name, directory)
    for line in report.lines():
        typer.echo(line)
    raise typer.Exit(0 if report.ok else 1)


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    normals: int = 200,
    anomalies: int = 50,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 256,
    seed: int = 0,
) -> None:
    """Make a textured set with defects and pixel masks, in MVTec AD layout."""
    _require("data synth", "train")
    from ahl_train.data.synth import write_dataset

    typer.echo(str(write_dataset(out, normals=normals, anomalies=anomalies, seed=seed, size=size)))


if __name__ == "__main__":
    main()
