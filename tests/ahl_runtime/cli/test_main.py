"""The command line as a whole: help, version, and one line for each error."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.ahl_runtime.cli.support import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["score", "--bundle", "{gone}", "{cell}"], "gone.ahl: cannot be read (No such file"),
        (["score", "--bundle", "{cell}", "{cell}"], "refused: not a bundle"),
        (["score", "--bundle", "{bundle}", "{gone}"], "no such file or folder"),
        (["score", "--bundle", "{bundle}", "{empty}"], "no images in this folder"),
        (["score", "--bundle", "{bundle}", "--threads", "0", "{cell}"], "--threads"),
        (["score", "--bundle", "{bundle}", "--threads", "x", "{cell}"], "--threads"),
        (["score", "--bundle", "{bundle}"], "IMAGE_OR_FOLDER"),
        (["score", "{cell}"], "--bundle"),
        (["score", "--colour", "{cell}"], "No such option"),
        (["check", "{gone}"], "gone.ahl: cannot be read"),
        (["check"], "BUNDLE"),
        (["paint"], "No such command"),
        (["--paint"], "No such option"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], said: str, bundle_path: Path, cells: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"gone": tmp_path / "gone.ahl", "cell": cells[0], "bundle": bundle_path, "empty": tmp_path / "empty"}
    done = run(*(a.format(**places) for a in arguments), code=2)
    assert said in done.stderr and done.stdout == ""


def test_a_name_cannot_add_a_line(tmp_path: Path) -> None:
    assert "\\x1b" in run("check", tmp_path / "a\nerror: b\x1b[31m.ahl", code=2).stderr


def test_help_and_version() -> None:
    assert "score" in run().stdout
    assert "--maps" in run("score", "--help").stdout
    assert run("--version").stdout.startswith("ahl-runtime 0.")


def test_openvino_brings_no_converter_and_no_telemetry() -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    script = """
import sys
from ahl_runtime.cli.main import main
sys.argv = ["ahl-runtime", "--version"]
try:
    main()
except SystemExit as end:
    assert not end.code
import openvino
assert openvino.Core().available_devices and "openvino_telemetry" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_each_command_has_help() -> None:
    for command in ("check", "score", "calibrate", "feedback", "init", "serve", "status", "deploy", "bench"):
        assert run(command, "--help").stdout.startswith(f"Usage: ahl-runtime {command} ")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    script = """
import sys
from ahl_runtime.cli import console
app = console.application("x")
@app.command()
def broken() -> None:
    raise ZeroDivisionError("a fault")
sys.argv = ["x"]
console.run(app, "x", lambda error: False)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr and "ZeroDivisionError: a fault" in done.stderr
