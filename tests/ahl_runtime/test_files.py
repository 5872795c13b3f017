"""A file is written whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ahl_runtime.files import write_whole


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
