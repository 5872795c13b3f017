"""The ablation: what AHL+ was chosen on has no part in the tests, and its rows add up to the system."""

from collections import defaultdict

import pytest

from ahl_train import ablation
from ahl_train.ablation import trial
from ahl_train.benchmark import deal
from ahl_train.datasets.elpv import doubtful
from ahl_train.images import load_dataset
from ahl_train.protocol import split


@pytest.fixture(scope="module")
def elpv():
    return load_dataset("elpv")


@pytest.mark.parametrize("seed", [0, 1])
def test_no_test_image_has_a_part_in_the_choice(elpv, seed):
    tested = {s.path for s in split(elpv, shots=10, seed=seed, calibration=0).test}
    chosen_on = trial(elpv, seed)
    assert not tested & {s.path for s in chosen_on.samples}
    assert len(chosen_on.anomalies) == len(doubtful()) == 106
    assert len(chosen_on.normals) == 1131
    assert set(chosen_on.classes) == {"mono", "poly"}


def test_all_cells_can_be_dealt_on_both(elpv):
    cells = list(ablation.cells(0))
    assert len(cells) == 6
    for dataset in (elpv, trial(elpv, 0)):
        for cell in cells:
            assert len(deal(cell, dataset).train_anomaly) == cell.shots


def test_the_table_has_a_line_a_row_and_the_means():
    figures = defaultdict(list)
    for i, (name, *_) in enumerate(ablation._ROWS):
        for column in ablation._COLUMNS:
            figures[name, column] += [0.5 + i / 100, 0.6 + i / 100]
    lines = ablation.table(figures, figures).splitlines()
    assert len(lines) == 2 + len(ablation._ROWS)
    assert lines[-1].count("0.600") == 8
