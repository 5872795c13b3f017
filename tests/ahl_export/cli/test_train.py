"""`ahl train` as a user runs it: one line for an error, exit code 2, nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest

from ahl_train.run import Run
from tests.ahl_export.cli.support import ahl, refused

pytestmark = pytest.mark.slow


def test_ahl_dra_trains_with_pseudo_anomalies(small_set: Path, cache: Path, tmp_path: Path) -> None:
    done = ahl(
        "train", "--data", small_set, "--system", "ahl-dra", "--shots", 2, "--epochs", 1, "--out", tmp_path / "run",
        "--cache", cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--schedule", "long"], "schedule is 'long', choose auto, paper or light or short"),
        (["--system", "nobody"], "unknown system 'nobody': choose among"),
        (["--shots", "9"], "9 shots requested, but there are 8 anomalies"),
        (
            ["--pseudo", "glitter"],
            "augmentations (--pseudo) are glitter, choose among cutmix, cutpaste, draem",
        ),
        (["--setting", "hard"], "setting hard needs a seen class (seen_class, --seen-class)"),
        (["--backbone-weights", "nowhere.pth"], "no weights file nowhere.pth"),
        (["--warp"], "--warp"),
    ],
)
def test_wrong_options_are_one_line(small_set: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    out = tmp_path / "run"
    assert message in refused(ahl("train", "--data", small_set, "--out", out, *arguments))
    assert not out.exists()


def test_wrong_folders_are_one_line(small_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "nowhere" in refused(ahl("train", "--data", "nowhere", "--out", out))
    bad = tmp_path / "bad"
    shutil.copytree(small_set / "test/crack", bad / "test/crack")
    assert "good" in refused(ahl("train", "--data", bad, "--shots", 1, "--out", out))
    (bad / "train/good").mkdir(parents=True)
    assert "normal" in refused(ahl("train", "--data", bad, "--shots", 1, "--out", out))
    assert not out.exists()


def test_a_truncated_image_is_named_and_left_out(small_set: Path, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(small_set, root)
    cut = sorted((root / "train/good").iterdir())[3]
    cut.write_bytes(cut.read_bytes()[:500])
    done = ahl("train", "--data", root, "--shots", 2, "--epochs", 1, "--out", tmp_path / "run", "--cache", cache)
    assert done.returncode == 0, done.stderr
    assert cut.name in done.stderr
    assert "1 images left out" in done.stderr
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert [cut.name in line for line in record["left_out"]] == [True]


def test_all_normals_truncated_is_an_error(small_set: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(small_set, root)
    for file in root.rglob("good/*.png"):
        file.write_bytes(file.read_bytes()[:500])
    line = refused(ahl("train", "--data", root, "--shots", 2, "--out", tmp_path / "run"))
    assert "none of the 55 normal images can be read" in line


def test_an_existing_run_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    out = shutil.copytree(run.folder, tmp_path / "run")
    options = ("--data", run.config.data, "--shots", 4, "--epochs", 2, "--calibration", 20, "--out", out)
    before = (out / "model.pt").read_bytes()
    assert "holds a run: continue with --resume" in refused(ahl("train", *options))
    other = ahl("train", *options, "--seed", 7, "--resume")
    assert "seed: 0 in the folder, 7 requested" in refused(other)
    assert (out / "model.pt").read_bytes() == before
