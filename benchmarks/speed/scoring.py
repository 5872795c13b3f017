"""The bench of scoring: our engines, the bare backbone, the paper's model and exports of anomalib take turns."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.engines.base import cores
from ahl_runtime.tuning.bench_worker import frame
from ahl_runtime.tuning.measure import ONE, Spread, Timed, Worker, in_turn
from ahl_train.features.backbone import BackboneSpec
from benchmarks.speed.models import write_anomalib, write_backbone

ROUNDS = 5
PAPER = "the paper's path, torch"
_ANOMALIB = (("PaDiM", 256), ("PaDiM", 448), ("EfficientAD-S", 256), ("EfficientAD-S", 448))
_FASTEST = "PaDiM"  # if OpenVINO chooses a lower precision, this model is also measured in float32, as ours
_BARE = {"onnxruntime": "onnxruntime", "onnxruntime-int8": "onnxruntime", "openvino": "openvino"}
_PROFILED = 20  # frames


def measure(bundle: Bundle, folder: Path, seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
    """Measure all contestants in turn. JSON-able. `folder`: keeps the exports. RuntimeFault, TrainError.

    `rows`: the figures of each contestant, with `round_ms`, the median of each round. `ratios`: for each of our
    engines, the time of each other contestant over its own time. `stages_ms`: time of the stages of the float32
    graph, from the profile of ONNX Runtime.
    """
    ours = [name for name in engines.available(bundle) if name in _BARE]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(name, "ahl_runtime.tuning.bench_worker", bundle.path, bundle.digest, name))
            for name in ours
        ]
        for name, *arguments in contestants(bundle, folder, {_BARE[name] for name in ours}, report):
            workers.append(stack.enter_context(Worker(name, "benchmarks.speed.contestant", *arguments)))
        report(f"scoring: {len(workers)} contestants in turn, {ROUNDS} rounds")
        timed = {found.name: found for found in in_turn(workers, seconds, ROUNDS, cores(None))}
    return {
        "rows": {name: {**found.figures(), "round_ms": _medians(found)} for name, found in timed.items()},
        "ratios": {name: ratios(timed, name) for name in ours},
        "stages_ms": stages(bundle),
    }


def contestants(
    bundle: Bundle, folder: Path, bare: Iterable[str], report: Callable[[str], None]
) -> Iterable[tuple[str, *tuple[object, ...]]]:
    """Name, kind and arguments of each process to compare with. Its model is written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = BackboneSpec(bundle.manifest.provenance.get("settings", {}).get("backbone", BackboneSpec().name))
    backbone = write_backbone(folder / "backbone.onnx", spec).absolute()
    for engine in sorted(bare):
        yield f"bare backbone, {engine}", engine, backbone
    yield PAPER, "paper"
    other = computes_in_less()
    for name, side in _ANOMALIB:
        report(f"anomalib's {name} at {side} px")
        title, exported = f"anomalib {name}, {side} px", write_anomalib(folder, name, side).absolute()
        yield title, "anomalib", exported, side
        if name == _FASTEST and other:
            yield f"{title}, float32", "anomalib", exported, side, "f32"


def computes_in_less() -> bool:
    """Does OpenVINO on this CPU by default round float32 graphs to bfloat16 or float16?"""
    import openvino

    return bool(openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") != openvino.Type.f32)


def ratios(timed: dict[str, Timed], ours: str) -> dict[str, Any]:
    """Time of each other contestant over that of one of our engines: median and quartiles over the rounds."""
    own = _medians(timed[ours])
    found = {
        name: list(_as_list(Spread.of([their / our for their, our in zip(_medians(other), own, strict=True)])))
        for name, other in timed.items()
        if name != ours
    }
    single = timed[ours].saturated[ONE]
    best = max(timed[ours].saturated.values(), key=lambda rates: np.median(rates))
    found["saturated, against one core"] = list(
        _as_list(Spread.of([many / one for many, one in zip(best, single, strict=True)]))
    )
    return found


def stages(bundle: Bundle) -> dict[str, float]:
    """Mean milliseconds of a frame for each stage of the float32 graph, on one thread, from ONNX Runtime's profile.

    All convolutions count as network, including those of heads.
    """
    import onnxruntime

    pixels = decode(frame(bundle, "onnxruntime"))[None]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(bundle.read("model.onnx"), options, providers=["CPUExecutionProvider"])
        for _ in range(_PROFILED):
            session.run(None, {"image": pixels})
        events = json.loads(Path(session.end_profiling()).read_text())
    total: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            total[_stage(event["name"], event["args"]["op_name"])] += event["dur"] / 1000
    return {stage: total[stage] / _PROFILED for stage in ("resize and normalise", "network", "heads and map")}


def _stage(node: str, operator: str) -> str:
    if node.startswith("extractor.preprocess"):
        return "resize and normalise"
    if operator in ("Conv", "FusedConv", "ReorderInput", "ReorderOutput") or node.startswith("extractor.backbone"):
        return "network"
    return "heads and map"


def _medians(timed: Timed) -> list[float]:
    return [float(np.median(taken)) for taken in timed.rounds]


def _as_list(spread: Spread) -> tuple[float, float, float]:
    return spread.median, spread.low, spread.high
