"""What `ahl-runtime serve` refuses before it starts; a running one is in service/test_process.py."""

from pathlib import Path

import pytest

from tests.ahl_runtime.cli.support import run


def test_a_wrong_key_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "line.toml").write_text('[model]\nbundel = "x"\n')
    done = run("serve", "--config", tmp_path / "line.toml", code=2)
    assert "model.bundel: no such key; did you mean bundle?" in done.stderr


def test_a_start_that_fails_leaves_no_store(tmp_path: Path, bundle_path: Path) -> None:
    store = tmp_path / "decisions.sqlite"
    damaged = tmp_path / "damaged.ahl"
    damaged.write_bytes(bundle_path.read_bytes()[:-1])
    done = run("serve", "--bundle", damaged, "--store", store, code=2)
    assert f"error: {damaged}: refused: " in done.stderr
    assert list(tmp_path.iterdir()) == [damaged]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "error: Give --config FILE, or --bundle FILE; see 'ahl-runtime serve --help'\n"),
        (["--bundle", "x.ahl", "--port", "65536"], "--port"),
        (["--bundle", "x.ahl", "--source", "tape:3"], "--source 'tape:3': expected one of folder:PATH"),
    ],
)
def test_wrong_options(arguments: list[str], said: str) -> None:
    assert said in run("serve", *arguments, code=2).stderr
