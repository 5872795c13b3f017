"""INT8: static quantisation of the graph's convolutions, and the measured search for those that stay in float32.

Activations are unsigned 8-bit integers. Weights are signed 7-bit integers, per channel: x86 CPUs without VNNI add pairs
of products in 16 bits, which 8-bit weights overflow, and a file must score alike on every CPU. Biases correct the
change that rounded weights make to a layer's mean (Nagel et al. 2019, Data-Free Quantization, 4.2). Everything except
convolutions stays in float32: resize, densities, scores.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from time import thread_time

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ahl_export.artefact import BuiltArtefact
from ahl_export.errors import ExportError
from ahl_export.graph.onnx_graph import array_of, constant, from_bytes, module_of, name_of, own_constants, to_bytes
from ahl_export.verify.layer_differences import probe
from ahl_export.verify.parity import Bounds, Evidence, Pixels, difference
from ahl_runtime.engines.base import cores
from ahl_runtime.engines.ort import OrtEngine
from ahl_train.features import Item

ENGINE = "onnxruntime-int8"
BOUNDS = Bounds(score=0.25, map=1.5, flips=0.01, rank=0.98)  # maps differ most where they are too low to be coloured
_TOLERANCE = 0.05  # CPUs round float32 differently by one unit, which may change an activation's integer
_NORMALS, _PSEUDO = 16, 8  # frames that measure the ranges
_KINDS = ("cutmix", "cutpaste", "draem")
_PROBES = 8  # frames of each kind for the search; every second one for the noise of one part
_TIMED = 6  # of these, to measure the time that a unit saves
_CLIPS = ("Clip", "Relu")
_SPREAD = 0.1  # allowed noise, as a standard deviation, in spreads of the normals' scores
_OF_GATE = 2 / 3  # the search allows this share of the gate's bounds: other frames may differ more

Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class _Statistics:
    """Statistics of the float32 graph's tensors over frames: [low, high] of each, and the mean of each channel."""

    ranges: Ranges
    means: dict[str, NDArray[np.float64]]


def build(graph: bytes, evidence: Evidence, spread: float, report: Callable[[str], None]) -> BuiltArtefact:
    """The quantised graph. `spread`: standard deviation of normals' scores. ExportError if no part can be quantised."""
    model = own_constants(from_bytes(graph), (1, 2))  # one scale may stay float32
    frames = list(_calibration_frames(evidence))
    statistics = _measure(model, frames)
    quantised = _correct_biases(_quantise(model, statistics.ranges), model, statistics.means)
    units = _units(model)
    kept, sensitivity = _search(model, quantised, units, _probe_frames(evidence), spread)
    if len(kept) == len(units):
        raise ExportError("no part of the graph can be quantised within its bounds: export without --int8")
    report(f"int8: {len(kept)} of {len(units)} parts stay in float32: {', '.join(kept) or 'none'}")
    found = _with_float(quantised, model, {name for unit in kept for name in units[unit]})
    data = to_bytes(found, check=True)
    extras = {
        "onnxruntime": version("onnxruntime"),
        "calibration": {"frames": len(frames), "method": "lowest and highest value"},
        "float32_parts": kept,
        "sensitivity": sensitivity,
    }
    precision = "int8 convolutions (activations u8, weights s7 per channel), the rest float32"
    files = {f"engines/{ENGINE}.onnx": data}
    return BuiltArtefact(
        ENGINE,
        files,
        precision,
        replace(BOUNDS, unit=spread),
        _TOLERANCE,
        OrtEngine(data, name=ENGINE),
        extras,
        partial(probe, found),
        lambda: OrtEngine(data, 1, ENGINE),
    )


def _calibration_frames(evidence: Evidence) -> Iterable[Pixels]:
    """Training normals, and pseudo anomalies made from other training normals."""
    normals, seed = evidence.run.split.train_normal, evidence.run.config.seed
    yield from (Item(s).pixels() for s in normals[:_NORMALS])
    for i, sample in enumerate(normals[_NORMALS : _NORMALS + _PSEUDO]):
        yield Item(sample, _KINDS[i % len(_KINDS)], normals[i], seed).pixels()


def _probe_frames(evidence: Evidence) -> list[Pixels]:
    """Other training normals, and pseudo anomalies of them: the search must not use the calibration frames."""
    normals, seed = evidence.run.split.train_normal, evidence.run.config.seed
    probes = [Item(s).pixels() for s in normals[-_PROBES:]]
    made = (Item(s, _KINDS[i % len(_KINDS)], normals[i], seed) for i, s in enumerate(normals[-2 * _PROBES : -_PROBES]))
    return probes + [item.pixels() for item in made]


def _convolutions(model: ir.Model) -> list[ir.Node]:
    return [n for n in model.graph if n.op_type == "Conv"]


def _quantisable(model: ir.Model) -> list[ir.Node]:
    """Convolutions, their clips, and the residual sums between them."""
    found: dict[ir.Node, None] = {}
    for node in model.graph:  # in execution order
        sources = [p for p in node.predecessors() if p in found]
        summed = node.op_type == "Add" and len(sources) == 2
        clipped = node.op_type in _CLIPS and [s.op_type in ("Conv", "Add") for s in sources] == [True]
        if node.op_type == "Conv" or summed or clipped:
            found[node] = None
    return list(found)


def _measure(model: ir.Model, frames: Sequence[Pixels]) -> _Statistics:
    """Run the frames through the float32 graph, with every tensor that will be quantised as an output."""
    nodes = _quantisable(model)
    clipped = {name_of(n.inputs[0]): name_of(n.outputs[0]) for n in nodes if n.op_type in _CLIPS}
    read = (v for n in nodes for v in (*n.inputs, *n.outputs) if v is not None and v.const_value is None)
    names = [name for name in dict.fromkeys(map(name_of, read)) if name not in clipped]
    run = probe(model, names)
    ranges: Ranges = {}
    means: dict[str, NDArray[np.float64]] = {}
    for frame in frames:
        for name, value in zip(names, run(frame), strict=True):
            low, high = ranges.get(name, (0.0, 0.0))  # zero is always a value: convolutions pad with it
            ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))
            means[name] = means.get(name, np.zeros(1)) + value.mean((0, 2, 3)) / len(frames)
    for before, after in clipped.items():  # the quantiser needs this range, and removes the clip
        ranges[before] = ranges[after]
    return _Statistics(ranges, means)


def _quantise(model: ir.Model, ranges: Ranges) -> ir.Model:
    """The model with every convolution between Q and DQ nodes."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    found = {n: TensorData(lowest=np.float32(low), highest=np.float32(high)) for n, (low, high) in ranges.items()}
    nodes = _quantisable(model)
    quantiser = QDQQuantizer(
        ir.to_proto(model),
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, found),
        nodes_to_quantize=[n.name for n in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({n.op_type for n in nodes}),
        extra_options={},
    )
    quantiser.quantize_model()
    proto: onnx.ModelProto = quantiser.model.model
    quantised = ir.from_proto(proto)
    quantised.graph.sort()  # the quantiser appends Q and DQ at the end
    return quantised


def _correct_biases(quantised: ir.Model, model: ir.Model, means: dict[str, NDArray[np.float64]]) -> ir.Model:
    """Subtract from the int32 biases what rounded weights add to the mean of each channel."""
    before = {n.name: n for n in _convolutions(model)}
    for node in (n for n in _convolutions(quantised) if len(n.inputs) > 2):  # without a bias, no correction is possible
        source, original = before[node.name].inputs[:2]
        (weights, scale), (bias, bias_scale) = (q.inputs[:2] for q in node.predecessors()[1:])
        rounded = array_of(weights).astype(np.float64) * array_of(scale).astype(np.float64).reshape(-1, 1, 1, 1)
        error = (rounded - array_of(original)).sum((2, 3))  # [out, in / groups]
        groups = node.attributes.get_int("group", 1)
        mean = means[name_of(source)].reshape(groups, -1)  # [groups, in / groups]
        shift = np.einsum("goi,gi->go", error.reshape(groups, -1, mean.shape[1]), mean).ravel()
        units = array_of(bias) - np.rint(shift / array_of(bias_scale))
        quantised.graph.initializers[name_of(bias)].const_value = ir.Tensor(units.astype(np.int32), name=name_of(bias))
    return quantised


def _units(model: ir.Model) -> dict[str, list[str]]:
    """Parts of the backbone at one scale (1: the fine one), by their nodes. A part is quantised as a whole."""
    units: dict[str, list[str]] = {}
    scales, current = 0, ""
    first = module_of(_convolutions(model)[0])
    for node in _quantisable(model):
        module = module_of(node)
        if node.op_type == "Conv":
            scales += module == first  # the backbone runs at one scale after the other
            part = ".".join(module.removeprefix("extractor.backbone.net.").split(".")[:2])
            current = f"{part} at scale {scales}"
        units.setdefault(current, []).append(node.name or "")
    return units


def _with_float(quantised: ir.Model, model: ir.Model, names: set[str]) -> ir.Model:
    """The quantised graph with the named nodes of the model in float32: they read float tensors and weights again.

    They read a quantised node's output through its Q and DQ, so that this node stays an integer one.
    """
    found = quantised.clone()
    there = ir.convenience.create_value_mapping(found.graph)
    before = {n.name: n for n in model.graph}
    integer = {n for n in _quantisable(model) if n.name not in names}
    for node in list(found.graph):
        original = before.get(node.name)
        if original is None or original in integer:
            continue
        for k, value in enumerate(original.inputs):
            if value is not None and value.const_value is not None:
                node.replace_input_with(k, _stored(found.graph, value))
            elif value is not None and value.producer() not in integer:
                node.replace_input_with(k, there[name_of(value)])
        if node.outputs[0].name != original.outputs[0].name:
            clip = _clip_again(found.graph, node, original.outputs[0])
            there[name_of(clip)] = clip
    RemoveUnusedNodesPass()(found)
    return found


def _stored(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """A constant of another graph, stored in this one."""
    return graph.initializers.get(name_of(value)) or constant(graph, name_of(value), array_of(value))


def _clip_again(graph: ir.Graph, node: ir.Node, written: ir.Value) -> ir.Value:
    """Restore the clip of `written`. The quantiser removed it, because Q clips too. Returns the clip's output."""
    (clip,), output = written.consumers(), node.outputs[0]
    clipped = ir.val(output.name, output.dtype, output.shape)
    output.replace_all_uses_with(clipped, replace_graph_outputs=True)
    output.name = written.name
    limits = [value and _stored(graph, value) for value in clip.inputs[1:]]
    node.append(ir.Node("", clip.op_type, [output, *limits], clip.attributes, outputs=[clipped], name=clip.name))
    return clipped


def _search(
    model: ir.Model, quantised: ir.Model, units: dict[str, list[str]], frames: Sequence[Pixels], spread: float
) -> tuple[list[str], dict[str, float]]:
    """The units that stay in float32, in graph order, and the noise of each unit when only that unit is quantised.

    Noise is the standard deviation of the scores' change, in units of `spread`. A shift that all scores share does not
    count: it moves the threshold too.
    """
    quantisable = {name for names in units.values() for name in names}
    wanted = _look(model, frames, cores(None))

    def with_float(kept: Iterable[str]) -> ir.Model:
        return _with_float(quantised, model, {n for unit in kept for n in units[unit]})

    whole = _engine(with_float([]))

    def noise(seen: _Seen, every: int = 1) -> float:
        return float(np.std(seen.scores - wanted.scores[::every])) / spread

    def alone(unit: str) -> float:
        return noise(_look(_with_float(quantised, model, quantisable - set(units[unit])), frames[::2]), every=2)

    def saves(unit: str) -> float:
        if added[unit] > _SPREAD:  # too noisy, whatever time it saves
            return 0.0
        return _slower(_engine(with_float([unit])), whole, frames[:_TIMED])

    def within(kept: Sequence[str]) -> bool:
        seen = _look(with_float(kept), frames, cores(None))
        maps = max(float(difference(w, s).max()) for w, s in zip(wanted.maps, seen.maps, strict=True))
        scores = float(difference(wanted.scores, seen.scores, spread).max())
        near = maps <= _OF_GATE * BOUNDS.map and scores <= _OF_GATE * BOUNDS.score
        return near and noise(seen) <= _SPREAD

    with ThreadPoolExecutor(cores(None)) as pool:
        added = dict(zip(units, pool.map(alone, units), strict=True))
        saved = dict(zip(units, pool.map(saves, units), strict=True))
    return _choose(added, saved, within), {unit: round(value, 4) for unit, value in added.items()}


def _choose(added: dict[str, float], saved: dict[str, float], within: Callable[[Sequence[str]], bool]) -> list[str]:
    """The units that stay in float32, given the noise that each adds alone and the milliseconds that it saves.

    Units that integers make slower stay. The others are tried in order, those that save most for their noise first. A
    unit is quantised if all quantised units together stay in bounds. `within`: whether they do, with these in float32.
    """
    taken: list[str] = []
    for unit in sorted((u for u in added if saved[u] > 0), key=lambda u: added[u] ** 2 / saved[u]):
        kept = [u for u in added if u not in (*taken, unit)]
        if sum(added[u] ** 2 for u in (*taken, unit)) ** 0.5 <= _SPREAD and within(kept):
            taken.append(unit)
    return [unit for unit in added if unit not in taken]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Results on some frames: scores [n], and maps."""

    scores: NDArray[np.float64]
    maps: list[NDArray[np.float32]]


def _look(model: ir.Model, frames: Sequence[Pixels], threads: int = 1) -> _Seen:
    engine = _engine(model, threads)
    outputs = [engine.infer(frame[None]) for frame in frames]
    return _Seen(np.array([float(o.score[0]) for o in outputs]), [o.anomaly_map[0] for o in outputs])


def _engine(model: ir.Model, threads: int = 1) -> OrtEngine:
    """An engine, with one thread for units that are measured in parallel."""
    return OrtEngine(to_bytes(model), threads)


def _slower(engine: OrtEngine, other: OrtEngine, frames: Sequence[Pixels]) -> float:
    """Median difference in milliseconds per frame. Engines take turns; only this thread's time counts."""
    differences = []
    for frame in frames:
        ends = [thread_time()]
        for timed in (engine, other):
            timed.infer(frame[None])
            ends.append(thread_time())
        differences.append(1e3 * ((ends[1] - ends[0]) - (ends[2] - ends[1])))
    return float(np.median(differences[1:]))  # the first includes one-time work
