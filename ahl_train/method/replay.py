"""Runs a function of tensors as one CUDA graph, so that hundreds of small kernels cost one launch."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_WARM_UP = 2  # calls before the capture: libraries allocate their workspaces in them


_Found = TypeVar("_Found")


class Replay(Generic[_Found]):
    """Calls ``function``. On a GPU the first call captures it as a CUDA graph, and later calls replay that graph.

    ``function`` takes tensors, in dicts, lists and tuples too, and returns tensors, in tuples and lists too. On a GPU
    the tensors must have the same shapes and dtypes in every call, and ``function`` must not wait for the GPU or draw
    random numbers. The next call overwrites the returned tensors.
    """

    def __init__(self, function: Callable[..., _Found]) -> None:
        self._function = function
        self._inputs: list[Tensor]
        self._outputs: _Found
        self._graph: torch.cuda.CUDAGraph | None = None
        self.refused: str | None = None  # why the capture failed; ``function`` then runs without a graph

    def __call__(self, *inputs: object) -> _Found:
        given = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
        if self.refused is not None or not given or given[0].device.type != "cuda":
            return self._function(*inputs)
        if self._graph is None:
            try:
                self._graph = self._capture(inputs)
            except RuntimeError as error:  # something waits for the GPU, or its memory is full
                self.refused = str(error).splitlines()[0]
                return self._function(*inputs)
        torch._foreach_copy_(self._inputs, given)
        self._graph.replay()
        return self._outputs

    def _capture(self, inputs: tuple[object, ...]) -> torch.cuda.CUDAGraph:
        own = pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), inputs)
        device = pytree.tree_leaves(own)[0].device
        side_stream = torch.cuda.Stream(device)
        side_stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side_stream):
            for _ in range(_WARM_UP):
                self._function(*own)
        torch.cuda.current_stream(device).wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        # Capture on the warm-up's stream, where libraries have their workspaces. Other threads may use the GPU.
        with torch.cuda.graph(graph, stream=side_stream, capture_error_mode="thread_local"):
            self._outputs = self._function(*own)
        self._inputs = [leaf for leaf in pytree.tree_leaves(own) if isinstance(leaf, Tensor)]
        return graph
