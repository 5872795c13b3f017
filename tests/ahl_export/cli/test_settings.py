"""What the options of a command become: a TrainConfig, a grid, an export. The work itself is left out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from ahl_export.cli import extras
from ahl_export.cli.main import app
from ahl_export.options import ExportOptions
from ahl_train.config import TrainConfig


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the commands hand on."""
    found: dict[str, Any] = {}

    def train(config: TrainConfig, out: Path, **others: Any) -> SimpleNamespace:
        found.update(config=config, out=out, **others)
        return SimpleNamespace(folder=out)

    def run_grid(grid: Any, out: Path, **others: Any) -> Path:
        found.update(grid=grid, out=out, **others)
        return out

    def export(run: Path, out: Path, options: ExportOptions, report: Any) -> SimpleNamespace:
        found.update(run=run, out=out, options=options)
        return SimpleNamespace(path=out)

    monkeypatch.setattr("ahl_train.training.train", train)
    monkeypatch.setattr("ahl_train.benchmark.grid.run_grid", run_grid)
    monkeypatch.setattr("ahl_export.pipeline.export", export)
    return found


def call(*arguments: str) -> None:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_train_without_options_is_the_default_config(asked: dict[str, Any]) -> None:
    call("train", "--data", "elpv", "--out", "run")
    assert asked["config"] == TrainConfig(data="elpv")
    assert (asked["out"], asked["resume"], asked["cache"]) == (Path("run"), False, None)
    assert (asked["device"], asked["precision"]) == ("auto", "auto")


def test_each_option_of_train_reaches_its_setting(asked: dict[str, Any]) -> None:
    wanted = TrainConfig(
        data="elpv",
        system="ahl-dra",
        shots=3,
        seed=4,
        setting="hard",
        seen_class="crack",
        calibrate="split",
        calibration=20,
        feedback=Path("marked"),
        backbone="resnet18",
        backbone_weights=Path("weights.pth"),
        schedule="paper",
        epochs=5,
        clusters=6,
        grouping="random",
        augmentations=("draem", "cutmix"),
        overlap="both",
        importance=False,
    )
    call(
        "train", "--data", "elpv", "--out", "run", "--system", "ahl-dra", "--shots", "3", "--seed", "4",
        "--setting", "hard", "--seen-class", "crack", "--calibrate", "split", "--calibration", "20",
        "--feedback", "marked", "--backbone", "resnet18", "--backbone-weights", "weights.pth", "--schedule", "paper",
        "--epochs", "5", "--clusters", "6", "--grouping", "random", "--pseudo", "draem,cutmix", "--overlap", "both",
        "--no-importance", "--resume", "--device", "cpu", "--precision", "float32", "--cache", "features",
    )  # fmt: skip
    assert asked["config"] == wanted
    assert (asked["resume"], asked["device"], asked["precision"]) == (True, "cpu", "float32")
    assert asked["cache"] == Path("features")
    call("train", "--data", "elpv", "--out", "run", "--calibrate", "cross", "--folds", "7", "--pseudo", "none")
    assert (asked["config"].folds, asked["config"].augmentations) == (7, ())


def test_a_grid_has_its_lists(asked: dict[str, Any]) -> None:
    call("benchmark", "--data", "elpv", "--out", "bench", "--shots", "1, 5,1", "--setting", "general", "--jobs", "2")
    grid = asked["grid"]
    assert (grid.data, grid.shots, grid.settings, grid.seeds) == ("elpv", (1, 5), ("general",), 3)
    assert (asked["out"], asked["jobs"], asked["ray"]) == (Path("bench"), 2, None)


def test_an_export_has_its_rates_and_artefacts(asked: dict[str, Any]) -> None:
    call("export", "run", "--out", "x.ahl", "--alpha", "0.1", "--confidence", "0.9", "--tail", "--int8", "--trt")
    assert (asked["run"], asked["out"]) == (Path("run"), Path("x.ahl"))
    assert asked["options"] == ExportOptions(alpha=0.1, confidence=0.9, tail=True, int8=True, trt=True)


def test_all_missing_extras_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {"onnx", "openvino"}
    monkeypatch.setattr(extras, "find_spec", lambda package: None if package in lacking else package)
    extras.require("train", "train")
    with pytest.raises(extras.MissingExtra, match=r"needs the extra \[export,openvino\]: pip install 'ahl\[export,"):
        extras.require("export", "export", "openvino", "signing")


def test_a_missing_extra_is_said_before_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    for command, extra in (("export", "export"), ("train", "train"), ("benchmark", "train"), ("data", "train")):
        with pytest.raises(extras.MissingExtra, match=rf"ahl {command} needs the extra \[{extra}\]"):
            CliRunner().invoke(app, [command, "--warp"], catch_exceptions=False)
