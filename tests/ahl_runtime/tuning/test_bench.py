"""The bench on a real bundle in real processes: what it gives, what it refuses, what tuning leaves behind. No times."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.errors import BenchError, OutputError
from ahl_runtime.engines import tuned
from ahl_runtime.engines.tuned import SessionOptions, Tuned
from ahl_runtime.tuning import measure
from ahl_runtime.tuning.bench import Asked, bench
from ahl_runtime.tuning.measure import Spread, Timed, Worker, in_turn
from ahl_runtime.tuning.tune import Trial, tune


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ahl_runtime.cli.main", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def write_tuned(of: Path, /, **changed: Any) -> Path:
    fields = {
        "bundle": open_bundle(of).digest,
        "device": tuned.device(),
        "created": "2026-01-01T00:00:00Z",
        "engines": {"onnxruntime": {"threads": 1, "spinning": True, "arena": False, "optimisation": "basic"}},
    }
    path = tuned.path_of(of)
    path.write_text(json.dumps({**fields, **changed}))
    return path


def test_the_figures_of_each_engine(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    done = command("--bundle", make_bundle(), "--seconds", 0.05, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done
    found = json.loads((tmp_path / "out.json").read_text())
    (row,) = found["engines"]
    assert row["engine"] == "onnxruntime" and row["engine"] in done.stdout
    for name in ("score_ms_p50", "score_ms_p99", "frames_per_second", "cold_start_s"):
        assert row[name] > 0
    for name in ("score_ms_p50", "frames_per_second", "cold_start_s"):
        low, high = row[f"{name.removesuffix('_p50')}_iqr"]
        assert low <= row[name] <= high
    assert row["score_ms_p50"] <= row["score_ms_p99"]
    assert list(row["stages_ms"]) == ["decode", "session", "postprocess"]
    assert row["saturated_by"] in row["saturated"]
    assert found["frame"] == [64, 64] and found["versions"]["onnxruntime"] and "--seconds 0.05" in found["command"]
    if sys.platform == "linux":
        assert 20 < row["rss_mb"] <= row["rss_peak_mb"] < 1000


def test_what_cannot_be_measured_is_said_in_one_line(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = make_bundle()
    bare = make_bundle("bare.ahl", first={"reference": []})
    for arguments in (
        ("--bundle", bundle, "--engine", "nonsense"),
        ("--bundle", bare),
        ("--bundle", bundle, "--seconds", 0),
        ("--bundle", bundle, "--seconds", 0.05, "--json", tmp_path / "no" / "out.json"),
    ):
        done = command(*arguments)
        assert done.returncode == 2, done
        assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
            done.stderr.splitlines()[-1]
        ]
    assert "reference frames" in command("--bundle", bare).stderr


def test_a_bundle_that_is_replaced_meanwhile_is_not_measured(make_bundle: Callable[..., Path]) -> None:
    path = make_bundle()
    opened = open_bundle(path)
    make_bundle(fields={"provenance": {"seed": 1}})
    with pytest.raises(BenchError, match="replaced"):
        bench(opened, Asked(seconds=0.05))


def test_a_process_that_dies_is_said_to_have() -> None:
    with (
        Worker("gone", "ahl_runtime.tuning.bench_worker") as worker,
        pytest.raises(BenchError, match=r"gone: its process ended with code 1 .*IndexError"),
    ):
        worker.ask("single", seconds=0.01)


def test_a_graph_that_fails_is_said_by_its_engine(make_bundle: Callable[..., Path], model: bytes) -> None:
    graph = onnx.load_from_string(model)
    nan = helper.make_tensor("one", TensorProto.FLOAT, [], [float("nan")])
    (one,) = [i for i in graph.graph.initializer if i.name == "one"]
    one.CopyFrom(nan)
    broken = make_bundle(members={"model.onnx": graph.SerializeToString()})
    with pytest.raises(BenchError, match="NaN"):
        bench(open_bundle(broken), Asked(seconds=0.05))


def test_contestants_take_turns() -> None:
    asked: list[tuple[str, str]] = []

    class StoredDecision(Worker):
        def __init__(self, name: str) -> None:
            self.name = name

        def ask(self, do: str, **given: Any) -> Any:
            asked.append((self.name, do))
            return {"single": [1.0, 2.0], "saturated": 5.0, "memory": {"rss_mb": 1.0}}[do]

        def __del__(self) -> None: ...

    in_turn([StoredDecision("a"), StoredDecision("b")], seconds=1, rounds=2, cores=2)
    singles = [name for name, do in asked if do == "single"]
    assert singles == ["a", "b", "a", "b"]
    first = [do for _, do in asked]
    assert "saturated" not in first[: len(first) - first[::-1].index("memory")]  # further sessions are not counted


def test_the_best_way_to_saturate_is_named() -> None:
    timed = Timed("x", [[1.0, 3.0], [2.0]], {"two": [8.0, 9.0, 10.0], "one": [7.0, 12.0, 8.0]}, {"rss_mb": None})
    figures = timed.figures()
    assert (figures["saturated_by"], figures["frames_per_second"]) == ("two", 9.0)
    assert figures["score_ms_p50"] == 2.0 and figures["frames"] == 3 and figures["rss_mb"] is None
    assert Spread.of([1, 2, 3, 4, 5]) == Spread(3, 2, 4)


def test_sessions_are_asked_side_by_side() -> None:
    def slow() -> None:
        time.sleep(0.02)

    assert measure.throughput([slow] * 4, 0.2) > 1.5 * measure.throughput([slow], 0.2)


# Tuning


def test_tuning_keeps_a_choice_that_scores_alike(make_bundle: Callable[..., Path]) -> None:
    bundle = open_bundle(make_bundle())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 80, 60, 3), dtype=np.uint8)
    before = engines.load(bundle, "onnxruntime").infer(pixels)
    trials: list[Trial] = []
    path = tune(bundle, None, 0.01, trials.append)
    assert path == bundle.path.with_name("cells.ahl.tune.json")
    kept = [t for t in trials if t.kept][-1]
    assert tuned.options(bundle, "onnxruntime") == kept.options
    assert {t.options.optimisation for t in trials} == {"all", "extended"}
    assert {t.options.spinning for t in trials} == {t.options.arena for t in trials} == {True, False}
    after = engines.load(bundle, "onnxruntime").infer(pixels)
    np.testing.assert_allclose(after.score, before.score, atol=1e-5)


def test_the_loader_uses_what_was_tuned(make_bundle: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    path = make_bundle()
    write_tuned(path)
    bundle = open_bundle(path)
    engine: Any = engines.load(bundle, "onnxruntime")
    chosen = engine._session.get_session_options()
    assert engine.threads == 1 and not chosen.enable_cpu_mem_arena
    assert chosen.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert chosen.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    asked: Any = engines.load(bundle, "onnxruntime", 2)
    assert asked.threads == 2  # what the user asks for goes first
    assert not caplog.records


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bundle": "0" * 64}, "another bundle"),
        ({"device": "a pocket calculator"}, "pocket calculator"),
        ({"engines": {"onnxruntime": {"threads": 0}}}, "engines.onnxruntime.threads"),
        ({"engines": {"onnxruntime": {"thread": 1}}}, "engines.onnxruntime.thread"),
        ({"format": 2}, "format"),
        ({"more": 1}, "more"),
    ],
)
def test_a_foreign_or_bad_choice_is_ignored_with_a_warning(
    make_bundle: Callable[..., Path], caplog: pytest.LogCaptureFixture, changed: dict[str, Any], said: str
) -> None:
    path = make_bundle()
    write_tuned(path, **changed)
    with caplog.at_level(logging.WARNING):
        assert tuned.options(open_bundle(path), "onnxruntime") == SessionOptions()
    (record,) = caplog.records
    assert said in record.getMessage() and "is ignored" in record.getMessage()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_rubbish_is_ignored(make_bundle: Callable[..., Path], caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    path = make_bundle()
    tuned.path_of(path).write_bytes(content)
    assert tuned.options(open_bundle(path), "onnxruntime") == SessionOptions()
    assert len(caplog.records) == 1 and "\n" not in caplog.records[0].getMessage()


def test_a_choice_is_written_whole_or_not_at_all(make_bundle: Callable[..., Path]) -> None:
    path = make_bundle()
    target = write_tuned(path)
    found = Tuned.model_validate_json(target.read_bytes())
    assert tuned.write(path, found) == target
    assert Tuned.model_validate_json(target.read_bytes()) == found
    target.unlink()
    target.mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        tuned.write(path, found)
    assert [p.name for p in path.parent.iterdir() if "tune" in p.name] == [target.name]


def test_an_engine_without_options_is_not_tuned(make_bundle: Callable[..., Path]) -> None:
    with pytest.raises(BenchError, match="no session options"):
        tune(open_bundle(make_bundle()), "openvino", 0.01, lambda trial: None)
