"""`ahl-runtime init`: a settings file that serve reads."""

from pathlib import Path

from ahl_runtime.service.config import load
from tests.ahl_runtime.cli.support import run


def test_it_writes_what_serve_reads(tmp_path: Path) -> None:
    run("init", tmp_path / "line.toml")
    assert load(tmp_path / "line.toml").source[0].name == "inbox"
    again = run("init", tmp_path / "line.toml", code=2)
    assert again.stderr == f"error: {tmp_path}/line.toml: exists already: choose another name\n"


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "no" / "line.toml"
    assert f"error: {file}: No such file or directory: " in run("init", file, code=2).stderr


def test_line_toml_is_the_default(tmp_path: Path) -> None:
    assert run("init", cwd=tmp_path).stdout.startswith("wrote line.toml: ")
    assert (tmp_path / "line.toml").is_file()
