"""The ablation: its rows add up to the system, and its table says what was measured where."""

from collections import defaultdict

import pytest

from ahl_train.benchmark.grid import auroc, deal
from ahl_train.benchmark.results import Cell
from benchmarks import ablation
from benchmarks.ablation import Bench


@pytest.fixture(scope="module")
def bench(elpv_cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    return Bench(str(elpv_cells(folder / "cells", train=24, test=12)), folder / "cache")


@pytest.mark.parametrize("shots", [0, 2])
def test_rows_add_up_to_the_system(bench, shots, monkeypatch):
    monkeypatch.setattr(ablation, "_ADDED", ("devnet",))  # learned in a second
    found = dict(bench.measure(shots, seed=0))
    dealt = deal(Cell("ahl-density", "general", None, shots, 0), bench.dataset)
    system = bench._learned("ahl-density", shots, dealt)
    assert found["+ factors learned by AHL: AHL(Density)"] == pytest.approx(
        auroc(system, bench.store, dealt.test), abs=1e-9
    )
    assert found["the best weights in hindsight, fitted on the test images"] >= found["densities of pooled statistics"]
    assert ("AHL(Density) and 0.3 of DevNet" in found) == (shots > 0)
    if not shots:  # there is no likeness to add, and nothing to learn from
        rows = list(found.values())
        assert len(set(rows[1:4])) == len(set(rows[4:6])) == 1


def test_the_table_has_the_means_of_seeds_and_of_sets():
    figures = defaultdict(list)
    for data, value in (("a", 0.6), ("b", 0.8)):
        for shots in (0, 1, 10):
            figures["densities of pooled statistics", data, shots] += [value, value + 0.02 * shots]
        figures["AHL(Density) and 0.3 of AHL(DevNet)", data, 10].append(value)
    head, _, first, *_, devnet, _ = ablation.table(figures).splitlines()
    assert head == "| shots 0 / 1 / 10 | mean | a | b |"
    assert first.endswith("| 0.700 / 0.710 / 0.800 | 0.600 / 0.610 / 0.700 | 0.800 / 0.810 / 0.900 |")
    assert devnet.endswith("| – / – / 0.700 | – / – / 0.600 | – / – / 0.800 |")
