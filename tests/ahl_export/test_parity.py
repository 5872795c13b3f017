"""The gate lets equal artefacts through and no others."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ahl_export.errors import ExportError
from ahl_export.parity import compare, frames_of, gate
from ahl_runtime.types import Outputs
from ahl_train.run import Run

pytestmark = pytest.mark.slow


class Torch:
    """The model itself as an engine, its scores off by a given error."""

    name = "torch"

    def __init__(self, run: Run, error: float, *, in_map: bool = False) -> None:
        self._run, self._error, self._in_map = run, error, in_map

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        import torch

        score, anomaly_map, heads = (t.numpy().copy() for t in self._run.model.score(torch.from_numpy(images)))
        if self._in_map:
            anomaly_map[..., 0, 0] += self._error * np.maximum(1, np.abs(anomaly_map[..., 0, 0]))
        else:
            score += self._error * np.maximum(1, np.abs(score))
        return Outputs(score, anomaly_map, heads)


def test_the_model_equals_itself(run: Run) -> None:
    parity = gate(run.model, Torch(run, 0.0), frames_of(run.split, 0))
    assert parity.score_max == 0
    assert parity.map_max == 0


@pytest.mark.parametrize("in_map", [False, True])
def test_a_departure_is_refused_and_named(run: Run, in_map: bool) -> None:
    frames = frames_of(run.split, 0)[:2]
    assert compare(run.model, Torch(run, 0.5e-4, in_map=in_map), frames).equal
    with pytest.raises(ExportError, match=r"torch disagrees .* nothing was written"):
        gate(run.model, Torch(run, 2e-4, in_map=in_map), frames)


def test_frames_are_of_several_sizes_and_kinds(run: Run) -> None:
    frames = frames_of(run.split, 0)
    shapes = {f.shape[:2] for f in frames}
    assert {(300, 300), (448, 448), (768, 1024), (500, 120)} <= shapes
    assert all(f.dtype == np.uint8 and f.shape[2] == 3 for f in frames)
    assert len({f.tobytes() for f in frames}) == len(frames)
