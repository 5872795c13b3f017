"""`ahl_train.train`, `evaluate` and `ahl_export.export`: as their commands, with paths of either kind."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import ahl_export
import ahl_runtime
import ahl_train

SETTINGS: dict[str, Any] = {"shots": 4, "seed": 0, "system": "ahl-devnet", "epochs": 1, "calibration": 20}


@pytest.fixture(scope="module")
def trained(small_set: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> ahl_train.Run:
    out = os.fspath(tmp_path_factory.mktemp("doors") / "run")
    return ahl_train.train(small_set, out, cache=os.fspath(cache), **SETTINGS)


@pytest.mark.slow
def test_from_images_to_a_decision(trained: ahl_train.Run, small_set: Path, tmp_path: Path) -> None:
    again = ahl_train.load_run(str(trained.folder))
    assert again.config == trained.config and trained.config.data == str(small_set)
    assert ahl_train.evaluate(str(trained.folder)) == ahl_train.evaluate(trained)
    lines: list[str] = []
    bundle = ahl_export.export(trained, str(tmp_path / "cells.ahl"), alpha=0.1, report=lines.append)
    found = ahl_export.inspect(str(bundle.path))
    assert found == ahl_export.inspect(bundle) and found["artefacts"][0]["decision"]["alpha"] == 0.1 and lines
    scored = ahl_runtime.load(bundle.path).score(next((small_set / "test" / "crack").iterdir()))
    assert scored.bundle == bundle.digest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shot": 3}, "no setting 'shot': did you mean shots?"),
        ({"shots": "many"}, "shots is 'many': input should be a valid integer"),
        ({"shots": -1}, "shots is -1, expected 0 or more"),
        ({"seed": 2**70}, "below 2^63"),
        ({"shots": 2, "clusters": 1000}, "1000 clusters need at least 4000 train normals"),
        ({"shots": 2, "report": 5}, "report is 5: expected a function"),
        ({"system": "magic"}, "unknown system 'magic': choose among"),
        ({"setting": "soft"}, "setting is 'soft': input should be 'general' or 'hard'"),
        ({"device": "abacus"}, "abacus"),
        ({"precision": "int4"}, "int4"),
        ({"cache": 7}, "cache is 7: expected a path, str or Path"),
        ({"backbone": "nowhere_net", "shots": 2}, "nowhere_net"),
        ({"shots": "many", "epok": 1}, "no setting 'epok': did you mean epochs?; shots is 'many'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_setting_is_a_train_error(
    small_set: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ahl_train.TrainError) as caught:
        ahl_train.train(small_set, tmp_path / "run", **settings)
    assert message in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "out"), [(7, "run"), ("nowhere", "run"), (None, "run"), ("elpv", 7), ("elpv", None), ("elpv", "")]
)
def test_wrong_places_are_train_errors(data: Any, out: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ahl_train.TrainError):
        ahl_train.train(data, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", [7, None, "nowhere"])
def test_what_is_no_run_is_refused_by_every_door(run: Any, tmp_path: Path) -> None:
    with pytest.raises(ahl_train.TrainError):
        ahl_train.evaluate(run)
    with pytest.raises(ahl_train.TrainError):
        ahl_train.load_run(run)
    with pytest.raises(ahl_export.ExportError):
        ahl_export.export(run, tmp_path / "x.ahl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 2}, "alpha"),
        ({"alpha": "low"}, "alpha is 'low'"),
        ({"int9": True}, "no setting 'int9': did you mean int8?"),
        ({"trt_precision": "int4"}, "trt_precision is 'int4'"),
        ({"trt_compat": True}, "options of trt (--trt): give it too"),
        ({"trt_rtx": ("sm1",)}, "choose among"),
        ({"sign": "nowhere.key"}, "nowhere.key: cannot be read"),
        ({"out": "no/such/folder/x.ahl"}, "cannot be written"),
        ({"out": 7}, "out is 7: expected a path"),
    ],
    ids=str,
)
def test_a_wrong_option_is_an_export_error(
    trained: ahl_train.Run, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    out = options.pop("out", tmp_path / "x.ahl")
    with pytest.raises(ahl_export.ExportError) as caught:
        ahl_export.export(trained, out, **options)
    assert message in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "content"), [("run.json", "{}"), ("split.json", '{"a": 1}')])
def test_a_damaged_run_is_said(trained: ahl_train.Run, tmp_path: Path, name: str, content: str) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(ahl_train.RunError, match=rf"{name} is damaged .*: train again"):
        ahl_train.load_run(tmp_path / "run")


def test_what_is_no_bundle_is_not_inspected() -> None:
    with pytest.raises(ahl_export.ExportError, match="check the path"):
        ahl_export.inspect("nowhere.ahl")
