"""`ahl-runtime score`: a JSON line for each image, maps beside them, one line for each error."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ahl_runtime.core.decode import decode
from tests.ahl_runtime.cli.support import lines, run


def test_one_json_line_for_each_image(bundle_path: Path, cells: list[Path]) -> None:
    results = lines(run("score", "--bundle", bundle_path, "--threads", 1, *cells[:3]))
    assert [r["image"] for r in results] == [str(c) for c in cells[:3]]
    for result, cell in zip(results, cells, strict=False):
        assert list(result) == ["image", "score", "p_value", "decision", "threshold", "calibration", "ms"]
        assert result["score"] == pytest.approx(1 - decode(cell).mean() / 255, abs=0.02)
        assert 0 < result["p_value"] <= 1 and result["decision"] in ("pass", "unsure", "reject")
        assert result["ms"] > 0


def test_a_damaged_image_among_many(bundle_path: Path, cells: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, cell in enumerate(cells[:3]):
        (folder / f"{i}.png").write_bytes(cell.read_bytes()[: None if i != 1 else 9000])
    done = run("score", "--bundle", bundle_path, folder, code=2)
    first, damaged, last = lines(done)
    assert "score" in first and "score" in last
    assert damaged["image"].endswith("1.png") and "1.png: cannot be decoded" in damaged["error"]
    assert done.stderr == "error: 1 of 3 images could not be scored: see their lines\n"


def test_maps_mirror_the_folders(bundle_path: Path, cells: list[Path], tmp_path: Path) -> None:
    for name in ("in/a/1.png", "in/b/1.png", "in/b/1.bmp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(cells[0]).save(path)
    run("score", "--bundle", bundle_path, "--maps", tmp_path / "maps", tmp_path / "in")
    written = sorted(str(p.relative_to(tmp_path / "maps")) for p in (tmp_path / "maps").rglob("*") if p.is_file())
    assert written == ["a/1.png", "b/1.bmp.png", "b/1.png"]


def test_maps_of_links_have_the_links_names(bundle_path: Path, cells: list[Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "in" / name).symlink_to(cells[0])
    run("score", "--bundle", bundle_path, "--maps", tmp_path / "maps", tmp_path / "in")
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == ["1.png", "2.png"]


def test_maps_never_overwrite_images(bundle_path: Path, cells: list[Path], tmp_path: Path) -> None:
    image = tmp_path / "1.png"
    image.write_bytes(cells[0].read_bytes())
    done = run("score", "--bundle", bundle_path, "--maps", tmp_path, image, code=2)
    assert "would be overwritten" in done.stderr and done.stdout == ""
    assert image.read_bytes() == cells[0].read_bytes()


def test_maps_that_cannot_be_written(bundle_path: Path, cells: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a folder" in run("score", "--bundle", bundle_path, "--maps", tmp_path / "file", cells[0], code=2).stderr


def test_an_infinite_threshold_is_null(make_bundle: Callable[..., Path], parts: Any, cells: list[Path]) -> None:
    path = make_bundle(first={"decision": {**parts[0]["artefacts"][0]["decision"], "threshold": float("inf")}})
    assert lines(run("score", "--bundle", path, cells[0]))[0]["threshold"] is None


def test_an_output_that_is_full(bundle_path: Path, cells: list[Path]) -> None:
    command = [sys.executable, "-m", "ahl_runtime.cli.main", "score", "--bundle", bundle_path, cells[0]]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: the output: No space left on device: check the place and its free space\n"


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_is_quiet(bundle_path: Path, cells: list[Path]) -> None:
    command = [sys.executable, "-m", "ahl_runtime.cli.main", "score", "--bundle", bundle_path, cells[0].parent]
    # What a background job's shell ignores, its children would too.
    wanted = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _heed_interrupts}
    with subprocess.Popen(command, text=True, **wanted) as running:
        assert running.stdout is not None and running.stdout.readline().startswith('{"image"')
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (130, "")


def test_the_same_image_gives_the_same_score(bundle_path: Path, cells: list[Path], tmp_path: Path) -> None:
    colour = tmp_path / "colour.png"
    Image.fromarray(np.asarray(decode(cells[0]))).save(colour)
    results = lines(run("score", "--bundle", bundle_path, cells[0], cells[0], colour))
    assert len({r["score"] for r in results}) == 1


def test_a_missing_path_among_others(bundle_path: Path, cells: list[Path], tmp_path: Path) -> None:
    gone, empty = tmp_path / "gone.png", tmp_path / "empty"
    empty.mkdir()
    done = run(
        "score", "--bundle", bundle_path, "--maps", tmp_path / "maps", cells[0], gone, empty, cells[1], code=2
    )  # fmt: skip
    first, missing, nothing, last = lines(done)
    assert (first["image"], last["image"]) == (str(cells[0]), str(cells[1])) and "score" in first and "score" in last
    assert missing == {"image": str(gone), "error": f"{gone}: no such file or folder: check the path"}
    assert nothing["image"] == str(empty) and "no images in this folder" in nothing["error"]
    assert done.stderr == "error: 2 of 4 images could not be scored: see their lines\n"
    assert len(list((tmp_path / "maps").iterdir())) == 2


def test_a_missing_path_among_images_that_are_decided_together(
    bundle_path: Path, cells: list[Path], tmp_path: Path
) -> None:
    done = run("score", "--bundle", bundle_path, "--fdr", 0.3, tmp_path / "gone.png", *cells[:2], code=2)
    missing, *scored = lines(done)
    assert "error" in missing and [line["fdr"] for line in scored] == [0.3, 0.3]


@pytest.mark.parametrize("option", ["--store", "--maps"])
@pytest.mark.parametrize("place", ["file/inside", "/proc/none"])
def test_a_place_that_cannot_be_written_is_said_before_the_work(
    bundle_path: Path, cells: list[Path], tmp_path: Path, option: str, place: str
) -> None:
    (tmp_path / "file").write_text("")
    done = run("score", "--bundle", bundle_path, option, tmp_path / place, cells[0], code=2)
    assert done.stdout == "" and place in done.stderr
