"""A file is written whole or not at all."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ahl_runtime.core.files import write_new, write_whole


def test_it_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    write_whole(path, [b"ne", b"w"])
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError("lost"), KeyboardInterrupt()])
def test_a_failure_midway_leaves_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise failure

    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)):
        write_whole(path, chunks())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "gone" / "a", [b""])


def test_a_new_file_is_never_written_over_another(tmp_path: Path) -> None:
    write_new(tmp_path / "new", [b"a", b"b"], 0o600)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "new", [b"c"])
    assert (tmp_path / "new").read_bytes() == b"ab"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_a_new_file_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # what FAT says

    monkeypatch.setattr(os, "link", none)
    write_new(tmp_path / "new", [b"ab"])
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "new", [b"c"])
    assert (tmp_path / "new").read_bytes() == b"ab" and [p.name for p in tmp_path.iterdir()] == ["new"]
