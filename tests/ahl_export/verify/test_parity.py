"""The gate lets equal artefacts through and no others."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ahl_export.verify.parity import Bounds, Evidence, compare, departs, difference, rank_correlation, spread
from ahl_runtime.core.types import Outputs
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


def test_the_model_equals_itself(run: Run, evidence: Evidence) -> None:
    close = compare(Torch(run, 0.0), evidence.gate, evidence.wanted)
    assert (close.score_max, close.score_mean, close.map_max, close.map_mean) == (0, 0, 0, 0)
    assert close.frames == len(evidence.gate)


@pytest.mark.parametrize("in_map", [False, True])
def test_a_departure_is_refused_and_named(run: Run, evidence: Evidence, in_map: bool) -> None:
    frames, wanted, bounds = evidence.gate[:2], evidence.wanted[:2], Bounds(1e-4, 1e-4, 0.0, 1.0)
    assert departs(compare(Torch(run, 0.5e-4, in_map=in_map), frames, wanted), bounds) is None
    said = departs(compare(Torch(run, 2e-4, in_map=in_map), frames, wanted), bounds)
    assert said is not None and said.startswith("scores by up to 0.0002" if not in_map else "scores by up to 0 ")


def test_scores_are_compared_in_units_of_their_spread(run: Run, evidence: Evidence) -> None:
    found = difference(np.array([0.5, 8.0, -2.0], np.float32), np.array([1.5, 6.0, -2.0], np.float32), 4.0)
    np.testing.assert_allclose(found, [0.25, 0.25, 0.0])
    assert spread(np.array([1.0, 7.0])) == 3.0 and spread(np.array([1.0, 1.1])) == 1.0
    frames, wanted = evidence.gate[:2], evidence.wanted[:2]
    unit = 2 * max(1.0, *(float(np.abs(w.score).max()) for w in wanted))  # above all scores: so errors count in it
    plain, in_units = (compare(Torch(run, 0.1), frames, wanted, u).score_max for u in (1.0, unit))
    assert plain == pytest.approx(0.1, rel=1e-3) and 0 < in_units <= 0.0501
    assert "spreads of 2 (" in (departs(compare(Torch(run, 9.0), frames, wanted), Bounds(1e-4, 1, 0, 1, 2.0)) or "")


def test_a_map_that_is_no_number_is_not_close(run: Run, evidence: Evidence) -> None:
    close = compare(Torch(run, float("nan"), in_map=True), evidence.gate[:1], evidence.wanted[:1])
    assert "maps by nan" in (departs(close, Bounds(1e-4, 1e-4, 0.0, 1.0)) or "")


def test_frames_are_of_several_sizes_and_kinds(evidence: Evidence) -> None:
    frames = evidence.gate
    shapes = {f.shape[:2] for f in frames}
    assert {(300, 300), (448, 448), (768, 1024), (500, 120)} <= shapes
    assert all(f.dtype == np.uint8 and f.shape[2] == 3 for f in frames)
    assert len({f.tobytes() for f in frames}) == len(frames)


def test_pseudo_anomalies_are_made_alike_each_time(evidence: Evidence) -> None:
    once, again = [p.tobytes() for p in evidence.pseudo()], [p.tobytes() for p in evidence.pseudo()]
    assert once == again and len(set(once)) == len(once)
    assert not set(once) & {p.tobytes() for p in evidence.normals()}


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    b = a + 0.5 * rng.normal(size=200)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
