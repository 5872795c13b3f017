"""A function of tensors as one CUDA graph: hundreds of small kernels for the price of one launch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_WARM_UP = 2  # calls before the capture, in which libraries allocate what they need once


class Replay:
    """Calls ``function``; on a GPU it is captured at its first call and replayed from then on.

    It takes and gives tensors, in dicts, lists and tuples; those on a GPU keep shape and dtype from call to call. What
    it gives is written over by its next call. It must not wait for the GPU, nor draw random numbers.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]]) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self.refused: str | None = None  # why it could not be captured: it is called then

    def __call__(self, *inputs: object) -> Sequence[Tensor]:
        given = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
        if self.refused is not None or not given or given[0].device.type != "cuda":
            return self._function(*inputs)
        if self._graph is None:
            try:
                self._capture(inputs)
            except RuntimeError as error:  # a library that waits for the GPU, or has no memory left
                self.refused = str(error).splitlines()[0]
                self._graph = None
                return self._function(*inputs)
        torch._foreach_copy_(self._inputs, given)
        self._graph.replay()
        return self._outputs

    def _capture(self, inputs: tuple[object, ...]) -> None:
        own = pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), inputs)
        device = pytree.tree_leaves(own)[0].device
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                self._function(*own)
        torch.cuda.current_stream(device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = self._function(*own)
        self._inputs = [leaf for leaf in pytree.tree_leaves(own) if isinstance(leaf, Tensor)]
