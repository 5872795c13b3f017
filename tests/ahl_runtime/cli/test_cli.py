"""The command line, run as users run it: JSON lines out, one line for each error, exit codes."""

import json
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


def run(*arguments: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ahl_runtime.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == code, done
    if code == 2:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    else:
        assert done.stderr == ""
    return done


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


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


def test_check(bundle_path: Path, make_bundle: Callable[..., Path], parts: Any) -> None:
    assert run("check", bundle_path).stdout.startswith("onnxruntime: pass: 2 frames, off by at most ")
    moved = [{**frame, "score": frame["score"] + 0.01} for frame in parts[0]["artefacts"][0]["reference"]]
    wrong = make_bundle(first={"reference": moved})
    assert run("check", wrong, code=1).stdout.startswith("onnxruntime: fail: ")
    (result,) = lines(run("check", wrong, "--json", code=1))
    assert result["passed"] is False and result["engines"][0]["largest"] == pytest.approx(0.01, abs=1e-5)


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


def test_help_and_version() -> None:
    assert "score" in run().stdout
    assert "--maps" in run("score", "--help").stdout
    assert run("--version").stdout.startswith("ahl-runtime 0.")


def test_the_same_image_gives_the_same_score(bundle_path: Path, cells: list[Path], tmp_path: Path) -> None:
    colour = tmp_path / "colour.png"
    Image.fromarray(np.asarray(decode(cells[0]))).save(colour)
    results = lines(run("score", "--bundle", bundle_path, cells[0], cells[0], colour))
    assert len({r["score"] for r in results}) == 1


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
