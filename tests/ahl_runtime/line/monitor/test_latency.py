"""The histogram of a line's stages: its own, whatever other lines the process has."""

import threading

from prometheus_client import REGISTRY

from ahl_runtime.line.monitor.latency import STAGES, StageLatencies


def samples(stages: StageLatencies, stage: str) -> dict[str, float]:
    """By name, and the bound where the sample is a bucket."""
    (family,) = stages.histogram.collect()
    return {s.name + s.labels.get("le", ""): s.value for s in family.samples if s.labels["stage"] == stage}


def test_frames_are_counted_by_how_long_they_took() -> None:
    stages = StageLatencies()
    for seconds in (0.0005, 0.001, 0.3, 99.0):
        stages.add("score", seconds)
    found = samples(stages, "score")
    assert [found[f"ahl_stage_seconds_bucket{bound}"] for bound in ("0.001", "0.25", "0.5", "10.0", "+Inf")] == [
        2,
        2,
        3,
        3,
        4,
    ]
    assert found["ahl_stage_seconds_count"] == 4 and abs(found["ahl_stage_seconds_sum"] - 99.3015) < 1e-9
    assert all(samples(stages, stage)["ahl_stage_seconds_count"] == 0 for stage in STAGES if stage != "score")


def test_each_line_has_its_own() -> None:
    one, other = StageLatencies(), StageLatencies()
    one.add("total", 1)
    assert samples(other, "total")["ahl_stage_seconds_count"] == 0
    assert "ahl_stage_seconds" not in {family.name for family in REGISTRY.collect()}


def test_threads_lose_no_frame() -> None:
    stages = StageLatencies()
    threads = [threading.Thread(target=lambda: [stages.add("wait", 0.01) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(stages, "wait")["ahl_stage_seconds_count"] == 8000
