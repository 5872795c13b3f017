"""Wide tensors never whole: the rows of a chain of layers are computed in bands, one band after the other.

A backbone's first blocks make tensors of tens of megabytes, which no small device's cache holds, between an input and
an output of a few. A band of output rows needs a band of the input's, with a few rows more for the kernels' reach;
what lies between stays in the cache, and in a fraction of the memory. Every number is computed as before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

_BAND = 5_000_000  # bytes of the widest tensor between, of one band
_TWICE = 1.25  # times the rows, at most, that are computed: rows that two bands need are computed for both
_BY_PIXELS = ("Clip", "Relu")


@dataclass(frozen=True)
class _Layer:
    """How rows go through a node: `before` of its input, `after` of its output, `above` of padding."""

    node: NodeProto
    before: int
    after: int
    kernel: int = 1
    stride: int = 1
    above: int = 0

    def part(self, first: int, end: int) -> _Part:
        """What a band's output rows `first` to `end` need."""
        top, bottom = first * self.stride - self.above, (end - 1) * self.stride - self.above + self.kernel
        padded = max(0, -top), max(0, bottom - self.before)
        return _Part(end - first, max(0, top), min(self.before, bottom), padded)

    def of_band(self, number: int, source: str, padded: tuple[int, int]) -> NodeProto:
        """The node for a band: it reads `source`, with so many rows of padding above and below."""
        node = NodeProto()
        node.CopyFrom(self.node)
        node.name, node.input[0] = f"{self.node.name}@{number}", source
        node.output[0] = f"{self.node.output[0]}@{number}"
        for attribute in node.attribute:
            if attribute.name == "pads":
                attribute.ints[0], attribute.ints[2] = padded
        return node


@dataclass(frozen=True)
class _Part:
    """A band of a layer: `rows` of its output, rows `first` to `end` of its input, of padding those above and below."""

    rows: int
    first: int
    end: int
    padded: tuple[int, int]


def banded(model: ModelProto, band: int = _BAND) -> ModelProto:
    """The same function of the same names; within wide chains, no tensor of more than about `band` bytes for a frame.

    A chain: layers that each are the only reader of the one before, their heights known, NCHW.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
    placed: dict[str, list[NodeProto]] = {}  # by the output that they give
    within: set[str] = set()
    constants: list[TensorProto] = []
    for chain in _chains(model, known):
        between = max(_bytes(known[layer.node.output[0]]) for layer in chain[:-1])
        ends = max(_bytes(known[chain[0].node.input[0]]), _bytes(known[chain[-1].node.output[0]]))
        count = min(ceil(between / band), chain[-1].after)
        bands = _bands(chain, count)
        if between > ends and count > 1 and _rows(chain, bands) <= _TWICE:
            within.update(layer.node.output[0] for layer in chain)
            placed[chain[-1].node.output[0]] = _cut(chain, bands, constants)
    nodes = [
        made
        for node in model.graph.node
        for made in placed.get(node.output[0], [] if node.output[0] in within else [node])
    ]
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(constants)
    kept = [v for v in model.graph.value_info if v.name not in within or v.name in placed]
    del result.graph.value_info[:]
    result.graph.value_info.extend(kept)
    return result


def _bytes(value: ValueInfoProto) -> int:
    """Of one frame."""
    tensor = value.type.tensor_type
    return prod(d.dim_value for d in tensor.shape.dim[1:]) * helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize


def _chains(model: ModelProto, known: Mapping[str, ValueInfoProto]) -> Iterator[list[_Layer]]:
    """The longest, in the graph's order."""
    readers: dict[str, list[NodeProto | None]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    for output in model.graph.output:
        readers[output.name].append(None)
    seen: set[str] = set()
    for node in model.graph.node:
        chain: list[_Layer] = []
        layer = _layer(node, known) if node.output[0] not in seen else None
        while layer is not None:
            seen.add(layer.node.output[0])
            chain.append(layer)
            following = readers[layer.node.output[0]]
            after = following[0] if len(following) == 1 else None
            reads = after is not None and after.input[0] == layer.node.output[0]
            layer = _layer(after, known) if after is not None and reads else None
        if len(chain) > 1:
            yield chain


def _layer(node: NodeProto, known: Mapping[str, ValueInfoProto]) -> _Layer | None:
    """None for a node that mixes rows in another way."""
    before, after = (_height(known.get(name)) for name in (node.input[0] if node.input else "", node.output[0]))
    if not before or not after:
        return None
    if node.op_type in _BY_PIXELS:
        return _Layer(node, before, after)
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    usual = not given.get("ceil_mode") and given.get("auto_pad", b"NOTSET") == b"NOTSET" and len(node.output) == 1
    if node.op_type not in ("Conv", "MaxPool") or not usual or set(given.get("dilations", [1])) != {1}:
        return None
    if any(name not in given for name in ("kernel_shape", "strides", "pads")):
        return None
    return _Layer(node, before, after, given["kernel_shape"][0], given["strides"][0], given["pads"][0])


def _height(value: ValueInfoProto | None) -> int:
    """0 where it is not known."""
    if value is None or len(value.type.tensor_type.shape.dim) != 4:
        return 0
    return int(value.type.tensor_type.shape.dim[2].dim_value)


def _bands(chain: Sequence[_Layer], count: int) -> list[list[_Part]]:
    """Of each band, each layer's part, in the chain's order."""
    edges = [round(chain[-1].after * i / count) for i in range(count + 1)]
    bands = []
    for first, end in pairwise(edges):
        parts = [chain[-1].part(first, end)]
        for layer in reversed(chain[:-1]):
            parts.append(layer.part(parts[-1].first, parts[-1].end))
        bands.append(parts[::-1])
    return bands


def _rows(chain: Sequence[_Layer], bands: Sequence[Sequence[_Part]]) -> float:
    """How many times the rows of the layer that suffers most are computed."""
    computed = (sum(part.rows for part in parts) for parts in zip(*bands, strict=True))
    return max(rows / layer.after for rows, layer in zip(computed, chain, strict=True))


def _cut(chain: Sequence[_Layer], bands: Sequence[Sequence[_Part]], constants: list[TensorProto]) -> list[NodeProto]:
    """The chain's nodes for each band, and their joint output; adds to `constants`."""
    whole, last = chain[0].node.input[0], chain[-1].node
    axis = _number(f"{last.name}@axis", 2)
    nodes: list[NodeProto] = []
    ends: list[str] = []
    constants.append(axis)
    for number, parts in enumerate(bands):
        name = f"{last.name}@{number}@rows"
        edges = [_number(f"{name}@first", parts[0].first), _number(f"{name}@end", parts[0].end)]
        constants += edges
        nodes.append(helper.make_node("Slice", [whole, *(e.name for e in edges), axis.name], [name], name=name))
        for layer, part in zip(chain, parts, strict=True):
            nodes.append(layer.of_band(number, nodes[-1].output[0], part.padded))
        ends.append(nodes[-1].output[0])
    return [*nodes, helper.make_node("Concat", ends, [last.output[0]], name=f"{last.name}@bands", axis=2)]


def _number(name: str, value: int) -> TensorProto:
    return numpy_helper.from_array(np.array([value], np.int64), name)
