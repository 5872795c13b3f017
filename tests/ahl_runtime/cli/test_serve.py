"""What `ahl-runtime serve` refuses before it starts; a running one is in service/test_process.py."""

import socket
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


def test_a_port_in_use_is_said_before_the_store_is_touched(tmp_path: Path, bundle_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        place = ("--store", tmp_path / "decisions.sqlite", "--port", port)
        done = run("serve", "--bundle", bundle_path, *place, code=2)
    assert f"127.0.0.1:{port}: cannot listen there" in done.stderr and list(tmp_path.iterdir()) == []


def test_a_wrong_exposure_is_said_before_the_store_is_touched(tmp_path: Path, bundle_path: Path) -> None:
    place = ("--store", tmp_path / "decisions.sqlite", "--port", 0, "--host", "0.0.0.0")
    assert "token" in run("serve", "--bundle", bundle_path, *place, code=2).stderr
    assert list(tmp_path.iterdir()) == []


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
