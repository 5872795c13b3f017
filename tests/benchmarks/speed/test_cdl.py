"""CDL as one batch does what one model after the other does."""

import pytest

from ahl_train.config import SCHEDULES, Schedule
from ahl_train.features import Extractor
from ahl_train.features.backbone import BackboneSpec
from ahl_train.systems import system
from benchmarks.speed.training import SYSTEMS, compare


@pytest.mark.parametrize("name", SYSTEMS)
def test_batched_equals_sequential(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = system(name).schedule
    few = Schedule(**{**vars(SCHEDULES[asked]), "outer_steps": 2, "batch": 8})
    monkeypatch.setitem(SCHEDULES, asked, few)
    found = compare(name, Extractor(BackboneSpec()).eval(), epochs=2)
    assert found["largest"] < 1e-4
    assert all(len(found[part]) == 3 for part in ("batched_s", "sequential_s", "ratio"))
