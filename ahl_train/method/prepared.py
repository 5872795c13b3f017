"""Samples as heads take them: the computation without parameters is done once per sample, not in each batch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ahl_train.features.maps import Features
from ahl_train.heads.base import Base

Rows = NDArray[np.int64]
Read = Callable[[Rows], Features]  # its next call may overwrite the result
_CHUNK = 64  # samples
_RESIDENT = 4 << 30  # most bytes of samples to keep on a GPU


class Samples:
    """The samples of some rows, on the base's device. A sample's place is its index among the sorted rows.

    They are kept as a table if ``base.prepare`` makes them small, or if a GPU has room for them. Otherwise each batch
    reads its samples.

    ``fitted``: rows that the base was fitted on, and the result of ``Base.fit`` for them, which replaces ``prepare``.
    """

    @torch.no_grad()
    def __init__(
        self, base: Base, read: Read, rows: Rows, device: torch.device, fitted: tuple[Rows, Features] | None = None
    ) -> None:
        self._known, self._read, self._device = np.unique(rows), read, device
        self._table: Features | None = None
        prepares = type(base).prepare is not Base.prepare
        if prepares or (device.type == "cuda" and self._size() <= _RESIDENT):
            own, parts, order = self._known, [], np.arange(len(self._known))
            if fitted:
                given, first = np.unique(fitted[0], return_index=True)  # one row for equal images
                wanted = np.isin(given, self._known)
                there = torch.from_numpy(first[wanted])
                parts = [{name: values[there].to(device) for name, values in fitted[1].items()}]
                own = np.setdiff1d(self._known, given)
                order = np.argsort(np.concatenate([given[wanted], own]))
            for start in range(0, len(own), _CHUNK):
                features = self._there(own[start : start + _CHUNK], copy=True)
                parts.append(base.prepare(widened(features)) if prepares else features)
            place = torch.from_numpy(order).to(device)
            self._table = {name: torch.cat([part[name] for part in parts])[place] for name in parts[0]}

    def places(self, rows: Rows) -> Rows:
        """The place of each row. The rows must be among those given at construction."""
        return np.searchsorted(self._known, rows)

    def at(self, places: Tensor) -> Features:
        """Features of the samples at ``places``, int [...]: float [..., C, h, w], or as from ``base.prepare``."""
        flat = places.flatten()
        if self._table is None:
            found = self._there(self._known[flat.cpu().numpy()])
        else:
            found = {name: values[flat] for name, values in self._table.items()}
        return {name: values.unflatten(0, places.shape) for name, values in widened(found).items()}

    def _there(self, rows: Rows, copy: bool = False) -> Features:
        return {name: values.to(self._device, copy=copy) for name, values in self._read(rows).items()}

    def _size(self) -> int:
        one = self._read(self._known[:1])
        return len(self._known) * sum(values.nbytes for values in one.values())


def widened(features: Features) -> Features:
    """float16 features, as the store keeps maps, converted to float32; others unchanged."""
    return {name: values.float() if values.dtype == torch.float16 else values for name, values in features.items()}
