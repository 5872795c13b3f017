"""Settings: all wrong ones reported together, read back as they were written."""

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from ahl_train.config import SCHEDULES, TrainConfig
from ahl_train.errors import ConfigError
from ahl_train.systems import SYSTEMS

WRONG = {
    "shots": -1,
    "seed": -2,
    "schedule": "quick",
    "epochs": 0,
    "clusters": 1,
    "setting": "easy",
    "grouping": "alphabet",
    "overlap": "some",
    "augmentations": ("cutmix", "mixup"),
}


def test_every_wrong_setting_is_reported_at_once():
    with pytest.raises(ConfigError) as raised:
        TrainConfig("elpv", **WRONG)
    for name, value in WRONG.items():
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        assert f"{name} {'(--pseudo) are' if name == 'augmentations' else 'is'}" in str(raised.value)
        assert shown in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_setting_is_reported_alone(name):
    with pytest.raises(ConfigError, match=name):
        TrainConfig("elpv", **{name: WRONG[name], **({"seen_class": "mono"} if name == "setting" else {})})


@pytest.mark.parametrize(
    ("name", "choices"), [("schedule", SCHEDULES), ("overlap", ("none", "query", "support", "both"))]
)
def test_choices_are_named(name, choices):
    with pytest.raises(ConfigError) as raised:
        TrainConfig("elpv", **{name: "?"})
    assert all(choice in str(raised.value) for choice in choices)


def test_the_hard_setting_needs_a_seen_class():
    with pytest.raises(ConfigError, match=r"needs a seen class \(seen_class"):
        TrainConfig("elpv", setting="hard")
    assert TrainConfig("elpv", setting="hard", seen_class="mono").seen_class == "mono"


def test_no_shots_and_no_augmentations_are_settings_too():
    assert TrainConfig("elpv", shots=0, augmentations=()).augmentations == ()


def test_json_and_back():
    config = TrainConfig(
        "data/cells",
        system="ahl-dra",
        shots=1,
        seed=7,
        setting="hard",
        seen_class="poly",
        calibrate="cross",
        calibration=0,
        folds=4,
        backbone="resnet18",
        backbone_weights=Path("weights/resnet18.pth"),
        schedule="paper",
        epochs=3,
        clusters=4,
        grouping="random",
        augmentations=("draem",),
        overlap="both",
        importance=False,
    )
    default = TrainConfig("elpv")
    marked = TrainConfig("elpv", feedback=Path("marked"))  # not with calibrate cross
    for field in fields(TrainConfig):
        assert any(getattr(each, field.name) != getattr(default, field.name) for each in (config, marked)), field.name
    for each in (config, default, marked):
        assert TrainConfig.checked(json.loads(json.dumps(each.to_json()))) == each


def test_unknown_settings_are_refused_and_named():
    with pytest.raises(ConfigError, match=r"no setting 'shot': did you mean shots\?; no setting 'epoch': did"):
        TrainConfig.checked({"data": "elpv", "shot": 1, "epoch": 3})


def test_epochs_override_the_schedules():
    assert TrainConfig("elpv", schedule="paper").steps == SCHEDULES["paper"]
    steps = TrainConfig("elpv", schedule="paper", epochs=2).steps
    assert (steps.epochs, steps.inner_steps) == (2, SCHEDULES["paper"].inner_steps)


def test_each_system_has_its_own_schedule_unless_told_otherwise():
    for name, chosen in SYSTEMS.items():
        assert TrainConfig("elpv", system=name).steps == SCHEDULES[chosen.schedule]
        assert TrainConfig("elpv", system=name, schedule="paper").steps == SCHEDULES["paper"]
    light, paper = SCHEDULES["light"], SCHEDULES["paper"]
    assert (light.epochs, light.outer_steps, light.batch) == (paper.epochs, paper.outer_steps, paper.batch)


def test_the_papers_schedule_is_the_papers():
    """3 passes of 20 batches of 48, lr 2e-4; Adam 2e-3, decay 1e-4, 0.1 every 10 epochs, norm 1, 30 epochs."""
    s = SCHEDULES["paper"]
    assert (s.epochs, s.inner_steps, s.batch, s.inner_lr) == (30, 3 * 20, 48, 2e-4)
    assert (s.outer_lr, s.weight_decay, s.decay_every, s.clip) == (2e-3, 1e-4, 10, 1.0)
    assert s.pseudo is None


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        TrainConfig("elpv").shots = 3
