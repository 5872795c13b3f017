"""The commands of the workstation and the device, one after the other."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.ahl_export.cli.support import ahl, refused

pytestmark = pytest.mark.slow


def test_the_road(small_set: Path, cache: Path, tmp_path: Path) -> None:
    run, bundle, maps = tmp_path / "run", tmp_path / "small.ahl", tmp_path / "maps"
    trained = ahl(
        "train", "--data", small_set, "--shots", 4, "--epochs", 2, "--calibration", 20, "--out", run, "--cache", cache
    )
    assert trained.returncode == 0, trained.stderr
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in epochs if "epoch" in e] == [1, 2]
    exported = ahl("export", run, "--out", bundle, "--alpha", 0.1)
    assert exported.returncode == 0, exported.stderr
    checked = ahl("check", bundle, program="ahl_runtime")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    scored = ahl("score", "--bundle", bundle, "--maps", maps, small_set / "test", program="ahl_runtime")
    assert scored.returncode == 0, scored.stderr
    lines = [json.loads(line) for line in scored.stdout.splitlines()]
    assert len(lines) == 18
    assert {"score", "p_value", "decision", "ms"} <= lines[0].keys()
    broken = [line["score"] for line in lines if "crack" in line["image"]]
    good = [line["score"] for line in lines if "good" in line["image"]]
    assert sum(b > g for b in broken for g in good) / (len(broken) * len(good)) > 0.7
    assert len(list(maps.rglob("*.png"))) == 18


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["paint"], "No such command 'paint'"),
        (["export"], "Missing argument 'RUN'; see 'ahl export --help'"),
        (["benchmark"], "Missing option '--data'; see 'ahl benchmark --help'"),
        (["benchmark", "--data", "elpv"], "Missing option '--out'; see 'ahl benchmark --help'"),
        (["benchmark", "--data", "elpv", "--out", "x", "--shots", "few"], "'few': give numbers with commas"),
        (["inspect", "gone.ahl"], "gone.ahl: cannot be read"),
        (["data", "check"], "Missing argument 'NAME'; see 'ahl data check --help'"),
    ],
)
def test_errors_are_one_line(arguments: list[str], said: str) -> None:
    assert said in refused(ahl(*arguments))


def test_without_a_command_it_is_the_help_and_its_version_is_told() -> None:
    assert ahl().stdout == ahl("--help").stdout and "Commands:" in ahl().stdout
    assert ahl("--version").stdout == f"ahl {version('ahl')}\n"


@pytest.mark.parametrize(
    "command",
    ["train", "evaluate", "export", "inspect", "keygen", "demo", "data check", "data synth", "benchmark table"],
)
def test_each_command_has_help(command: str) -> None:
    assert ahl(*command.split(), "--help").stdout.startswith(f"Usage: ahl {command} ")
