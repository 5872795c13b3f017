"""The device's choice among a bundle's artefacts: what can run here, the fastest first, each by its own thresholds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.core.errors import EngineError
from ahl_runtime.engines import cuda
from ahl_runtime.score.scoring import Scorer
from ahl_runtime.score.selfcheck import check

PARITY = {
    "frames": 10,
    "score_max": 0.0,
    "score_mean": 0.0,
    "map_max": 0.0,
    "map_mean": 0.0,
    "compared": 40,
    "rank_correlation": 1.0,
    "flips": 0,
    "ms_p50": 20.0,
    "ms_p99": 30.0,
    "threads": 2,
    "cpu": "a CPU",
    "size": 1000,
}


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], parts: Any) -> Callable[[float], Bundle]:
    """A bundle whose INT8 artefact (the same graph here) took so many milliseconds where float32 took 20."""
    first = {**parts[0]["artefacts"][0], "parity": PARITY}

    def make(milliseconds: float) -> Bundle:
        rule = {**first["decision"], "threshold": 0.9, "unsure_threshold": 0.1}
        parity = {**PARITY, "ms_p50": milliseconds}
        other = {**first, "engine": "onnxruntime-int8", "decision": rule, "map_range": [0.1, 0.5], "parity": parity}
        return open_bundle(make_bundle(fields={"artefacts": [first, other]}))

    return make


@pytest.mark.parametrize(("milliseconds", "order"), [(10.0, [1, 0]), (40.0, [0, 1])])
def test_the_faster_one_where_it_was_exported_comes_first(
    bundle: Callable[[float], Bundle], milliseconds: float, order: list[int]
) -> None:
    names = ["onnxruntime", "onnxruntime-int8"]
    assert [n for n in engines.available(bundle(milliseconds)) if n in names] == [names[i] for i in order]


def test_each_engine_decides_by_its_artefacts_thresholds(bundle: Callable[[float], Bundle]) -> None:
    opened = bundle(10.0)
    grey = np.full((8, 8, 3), 128, np.uint8)
    own = Scorer(opened, "onnxruntime-int8", threads=1)
    assert own.rule.threshold == 0.9 and own.map_range == (0.1, 0.5) and own.score(grey).verdict == "unsure"
    first = Scorer(opened, "onnxruntime", threads=1)
    assert first.rule.threshold == opened.manifest.first.decision.threshold and first.map_range == (0.2, 0.8)
    assert Scorer(opened, threads=1).engine.name == "onnxruntime-int8"


def test_an_engine_that_the_bundle_is_not_for_names_the_choices(bundle: Callable[[float], Bundle]) -> None:
    with pytest.raises(EngineError, match=r"no artefact for engine 'openvino': choose among .*onnxruntime-int8"):
        engines.load(bundle(10.0), "openvino")


@pytest.mark.skipif(cuda.missing() is None, reason="this machine has a GPU")
def test_an_engine_that_cannot_run_here_says_why(bundle: Callable[[float], Bundle]) -> None:
    with pytest.raises(EngineError, match=r"onnxruntime-cuda cannot run here: .*(onnxruntime-gpu|NVIDIA)"):
        engines.load(bundle(10.0), "onnxruntime-cuda")


def test_the_check_measures_all_of_them_and_explains_the_choice(bundle: Callable[[float], Bundle]) -> None:
    report = check(bundle(10.0), threads=1)
    ran = {c.engine: c for c in report.checks if c.passed is not None}
    assert set(ran) >= {"onnxruntime", "onnxruntime-int8"} and report.passed
    assert all(c.ms is not None and c.ms > 0 for c in ran.values())
    assert report.chosen == "onnxruntime-int8" and report.why.startswith("onnxruntime-int8: the first that can run")


@pytest.mark.gpu
@pytest.mark.skipif(cuda.missing() is not None, reason=f"no GPU to run on: {cuda.missing()}")
def test_cuda_scores_as_the_cpu(bundle: Callable[[float], Bundle]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime is the CPU package: install onnxruntime-gpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 300, 300, 3), dtype=np.uint8)
    opened = bundle(10.0)
    got, wanted = (engines.load(opened, name).infer(images) for name in ("onnxruntime-cuda", "onnxruntime"))
    np.testing.assert_allclose(got.score, wanted.score, atol=1e-4)
    np.testing.assert_allclose(got.anomaly_map, wanted.anomaly_map, atol=1e-4)


@pytest.mark.parametrize(("threads", "side_by_side", "many"), [(2, None, 2), (2, True, 2), (2, False, 1), (1, True, 1)])
def test_side_by_side_each_frame_has_a_thread(
    bundle: Callable[[float], Bundle], threads: int, side_by_side: bool | None, many: int
) -> None:
    single, parallel, found = engines.single_and_parallel(bundle(10.0), "onnxruntime", threads, side_by_side)
    assert found == many and single.threads == threads
    assert parallel.threads == (1 if many > 1 else threads)
    assert (single is parallel) == (many == 1)
