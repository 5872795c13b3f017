"""Computes chains of layers in bands of rows, one band after the other, so that no wide tensor exists as a whole.

The input and output of a backbone's first blocks have a few megabytes. The tensors between have tens of megabytes,
more than a small device's cache holds. A band of output rows needs a band of input rows, plus a few rows for the
kernels' reach. The tensors of a band fit into the cache and need less memory. Every number is computed as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod

import numpy as np
import onnx_ir as ir

from ahl_export.graph.onnx_graph import constant, with_shapes

_BAND = 5_000_000  # bytes of a chain's widest tensor, for one band
_TWICE = 1.25  # most times that rows are computed: rows that two bands need are computed twice
_BY_PIXELS = ("Clip", "Relu")


@dataclass(frozen=True)
class _Layer:
    """How rows pass through a node: `before` in its input, `after` in its output, `above` of padding."""

    node: ir.Node
    source: ir.Value
    before: int
    after: int
    kernel: int = 1
    stride: int = 1
    above: int = 0

    @property
    def output(self) -> ir.Value:
        """The node's output."""
        return self.node.outputs[0]

    def part(self, first: int, end: int) -> _Part:
        """The part of the layer that computes output rows `first` to `end`."""
        top, bottom = first * self.stride - self.above, (end - 1) * self.stride - self.above + self.kernel
        padded = max(0, -top), max(0, bottom - self.before)
        return _Part(end - first, max(0, top), min(self.before, bottom), padded)

    def of_band(self, number: int, source: ir.Value, padded: tuple[int, int]) -> ir.Node:
        """The node for a band. It reads `source`, with so many rows of padding above and below."""
        node, attributes = self.node, dict(self.node.attributes)
        if "pads" in attributes:
            _, left, _, right = attributes["pads"].as_ints()
            attributes["pads"] = ir.AttrInt64s("pads", (padded[0], left, padded[1], right))
        name, output = f"{node.name}@{number}", ir.val(f"{self.output.name}@{number}")
        return ir.Node("", node.op_type, (source, *node.inputs[1:]), attributes, outputs=[output], name=name)


@dataclass(frozen=True)
class _Part:
    """A band of a layer: `rows` of its output, rows `first` to `end` of its input, `padded` rows above and below."""

    rows: int
    first: int
    end: int
    padded: tuple[int, int]


def banded(model: ir.Model, band: int = _BAND) -> ir.Model:
    """The same function with the same names. Within wide chains, no tensor has more than about `band` bytes per frame.

    In a chain each layer is the only reader of the one before. Heights are known; tensors are NCHW.
    """
    result = with_shapes(model.clone())
    for chain in list(_chains(result.graph)):
        between = max(_bytes(layer.output) for layer in chain[:-1])
        count = min(ceil(between / band), chain[-1].after)
        if count < 2 or between <= max(_bytes(chain[0].source), _bytes(chain[-1].output)):
            continue
        bands = _bands(chain, count)
        if _rows(chain, bands) <= _TWICE:
            _cut(result.graph, chain, bands)
    return result


def _bytes(value: ir.Value) -> int:
    """Bytes of one frame; 0 if unknown."""
    if value.shape is None or value.dtype is None:
        return 0
    return prod(d if isinstance(d, int) else 0 for d in value.shape[1:]) * value.dtype.bitwidth // 8


def _chains(graph: ir.Graph) -> Iterator[list[_Layer]]:
    """The longest chains, in the graph's order."""
    seen: set[ir.Node] = set()
    for node in graph:
        chain: list[_Layer] = []
        layer = _layer(node) if node not in seen else None
        while layer is not None:
            seen.add(layer.node)
            chain.append(layer)
            layer = _reader(layer.output)
        if len(chain) > 1:
            yield chain


def _reader(value: ir.Value) -> _Layer | None:
    """The layer that reads a tensor, if nothing else reads it."""
    uses = list(value.uses())
    alone = len(uses) == 1 and uses[0].idx == 0 and not value.is_graph_output()
    return _layer(uses[0].node) if alone else None


def _layer(node: ir.Node) -> _Layer | None:
    """The layer of a node; None if the node mixes rows in another way."""
    source = node.inputs[0] if node.inputs else None
    before, after = _height(source), _height(node.outputs[0])
    if source is None or not before or not after:
        return None
    if node.op_type in _BY_PIXELS:
        return _Layer(node, source, before, after)
    given = node.attributes
    usual = not given.get_int("ceil_mode") and given.get_string("auto_pad", "NOTSET") == "NOTSET"
    dilated = set(given.get_ints("dilations", ())) - {1}
    if node.op_type not in ("Conv", "MaxPool") or not usual or dilated or len(node.outputs) != 1:
        return None
    how = [given.get_ints(name) for name in ("kernel_shape", "strides", "pads")]
    firsts = [each[0] for each in how if each]
    return _Layer(node, source, before, after, *firsts) if len(firsts) == 3 else None


def _height(value: ir.Value | None) -> int:
    """The height of a tensor; 0 if unknown."""
    if value is None or value.shape is None or value.shape.rank() != 4:
        return 0
    rows = value.shape[2]
    return rows if isinstance(rows, int) else 0


def _bands(chain: Sequence[_Layer], count: int) -> list[list[_Part]]:
    """For each band, the part of each layer, in the chain's order."""
    edges = [round(chain[-1].after * i / count) for i in range(count + 1)]
    bands = []
    for first, end in pairwise(edges):
        parts = [chain[-1].part(first, end)]
        for layer in reversed(chain[:-1]):
            parts.append(layer.part(parts[-1].first, parts[-1].end))
        bands.append(parts[::-1])
    return bands


def _rows(chain: Sequence[_Layer], bands: Sequence[Sequence[_Part]]) -> float:
    """How many times rows are computed, for the layer with the most repetitions."""
    return max(sum(parts[k].rows for parts in bands) / layer.after for k, layer in enumerate(chain))


def _cut(graph: ir.Graph, chain: Sequence[_Layer], bands: Sequence[Sequence[_Part]]) -> None:
    """Replace the chain by the nodes of each band, and one node that joins their outputs."""
    last = chain[-1].node
    axis = constant(graph, f"{last.name}@axis", np.array([2], np.int64))
    nodes: list[ir.Node] = []
    ends: list[ir.Value] = []
    for number, parts in enumerate(bands):
        name = f"{last.name}@{number}@rows"
        first = constant(graph, f"{name}@first", np.array([parts[0].first], np.int64))
        end = constant(graph, f"{name}@end", np.array([parts[0].end], np.int64))
        nodes.append(ir.node("Slice", [chain[0].source, first, end, axis], outputs=[ir.val(name)], name=name))
        for layer, part in zip(chain, parts, strict=True):
            nodes.append(layer.of_band(number, nodes[-1].outputs[0], part.padded))
        ends.append(nodes[-1].outputs[0])
    joint = ir.node("Concat", ends, {"axis": 2}, name=f"{last.name}@bands")
    old = [layer.node for layer in chain]
    ir.convenience.replace_nodes_and_values(graph, last, old, [*nodes, joint], last.outputs, joint.outputs)
