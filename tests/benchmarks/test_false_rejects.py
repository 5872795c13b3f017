"""The promise on real images, on a small slice: real trainings, kept scores, the table in its page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import calibration
from ahl_train.config import TrainConfig
from benchmarks.false_rejects import SplitScores, SplitTrainer, few_table, kept, main, table


def drawn(seed: int, shift: float) -> SplitScores:
    rng = np.random.default_rng(seed)
    return SplitScores(rng.normal(size=473), rng.normal(shift, 1, 300), rng.normal(4, 1, 100), 600, 0)


def test_rates_are_counts_above_the_threshold_of_the_first_normals() -> None:
    splits = [drawn(s, 0.0) for s in range(3)]
    found = kept(splits, 0.05, 0.95, 100)
    thresholds = [calibration.fit(s.held_out[:100], 0.05).threshold for s in splits]
    rates = [(s.normal > t).mean() for s, t in zip(splits, thresholds, strict=True)]
    assert (found.n, found.kind) == (100, "confident")
    assert found.mean == pytest.approx(np.mean(rates))
    assert found.error == pytest.approx(np.std(rates, ddof=1) / np.sqrt(3))
    assert found.highest == max(rates)


def test_a_broken_promise_is_said() -> None:
    good, bad = [drawn(s, 0.0) for s in range(20)], [drawn(s, 1.0) for s in range(20)]
    assert table(good)[1]
    text, holds = table(bad)
    assert not holds
    assert "| NO |" in text


def test_out_of_fold_scores_are_an_estimate() -> None:
    splits = [replace(drawn(s, 0.0), folds=10) for s in range(3)]
    assert kept(splits, 0.05, 0.95, 473).kind == "cross"
    assert "| cross |" in few_table({"cross": splits})[0]
    assert [line.split("|")[3].strip() for line in table(splits)[0].splitlines()[2:]] == ["473"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("calibrate", ["split", "cross"])
def test_real_splits_are_trained_once_and_read_after(
    small_set: Path, cache: Path, tmp_path: Path, calibrate: str
) -> None:
    config = TrainConfig(str(small_set), shots=4, epochs=1, calibrate=calibrate)
    said: list[str] = []
    maker = SplitTrainer(tmp_path, cache, 24, said.append)
    first = maker.splits(config, 2)
    assert len(said) == 2
    assert [(s.trained, s.held_out.size, s.folds) for s in first] == [
        (16, 8, 0) if calibrate == "split" else (24, 24, 5)
    ] * 2
    assert [(s.normal.size, s.anomalous.size) for s in first] == [(10, 4)] * 2
    assert not np.array_equal(first[0].held_out, first[1].held_out)
    again = maker.splits(config, 2)
    assert len(said) == 2
    assert all(np.array_equal(a.normal, b.normal) for a, b in zip(first, again, strict=True))


def test_one_split_has_no_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--splits", "1", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: splits is 1: expected 2 or more, for a standard error\n"
