"""`ahl-runtime calibrate` as an operator runs it: a preview, a side file, decisions that follow it, and back again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import calibration
from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.bundle.device_calibration import SideFiles
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import SourceError
from ahl_runtime.line.sources.collect import collect
from ahl_runtime.line.sources.push import PushSource
from ahl_runtime.line.sources.stream import VideoSource
from ahl_runtime.score.recalibrate import evenly
from ahl_runtime.score.scoring import Scorer


def run(*arguments: object, code: int = 0, answer: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ahl_runtime.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=answer)
    assert done.returncode == code, done
    if code == 2:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()


@pytest.fixture(scope="module")
def darker(cells: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The line after its lamp grew old: 40 normal cells at six tenths of their light."""
    folder = tmp_path_factory.mktemp("line")
    for i, cell in enumerate(cells):
        Image.fromarray((decode(cell) * 0.6).astype(np.uint8)).save(folder / f"{i:03d}.png")
    return folder


def score(bundle: Path, *arguments: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("score", "--bundle", bundle, *arguments).stdout.splitlines()]


def test_the_road(bundle: Path, darker: Path) -> None:
    whole = bundle.read_bytes()
    before = score(bundle, darker)
    assert {line["calibration"] for line in before} == {"bundle"}
    rejected = sum(line["decision"] == "reject" for line in before)
    unsure = sum(line["decision"] == "unsure" for line in before)
    assert rejected > 4
    shown = run("calibrate", "--bundle", bundle, "--source", darker, "--yes", "--who", "ann", "--why", "old lamp")
    new = calibration.fit([line["score"] for line in before], 0.1, 0.9, unsure_alpha=0.5)
    assert f"old (bundle): threshold {before[0]['threshold']:.6g}" in shown.stdout
    assert f"new: threshold {new.threshold:.6g}" in shown.stdout and new.promise.sentence in shown.stdout
    assert f"of the 40 new frames: the old rejects {rejected} and is unsure of {unsure}, the new " in shown.stdout
    after = score(bundle, darker)
    assert {line["calibration"] for line in after} == {"default.onnxruntime.0001"}
    assert {line["threshold"] for line in after} == {new.threshold}
    assert [line["p_value"] for line in after] == new.p_values([line["score"] for line in before]).tolist()
    assert score(bundle, "--as-exported", darker)[0]["threshold"] == before[0]["threshold"]
    assert "source default on onnxruntime: calibration default.onnxruntime.0001" in run("check", bundle).stdout
    audit = json.loads((bundle.parent / "cells.ahl.calibrations" / "audit.jsonl").read_text())
    assert (audit["who"], audit["why"], audit["before"]) == ("ann", "old lamp", "bundle")
    assert (audit["rejected_by_old"], audit["normals"], audit["new_threshold"]) == (rejected, 40, new.threshold)
    undone = run("calibrate", "--bundle", bundle, "--undo")
    assert "rolled back: default.onnxruntime.0001" in undone.stdout and "active: bundle" in undone.stdout
    assert [line["decision"] for line in score(bundle, darker)] == [line["decision"] for line in before]
    assert bundle.read_bytes() == whole


@pytest.mark.parametrize("answer", ["", "n\n", "\n"])
def test_nothing_is_written_without_a_yes(bundle: Path, darker: Path, answer: str) -> None:
    done = run("calibrate", "--bundle", bundle, "--source", darker, answer=answer)
    assert "new: threshold" in done.stdout and done.stdout.endswith("nothing was written\n")
    assert list(bundle.parent.iterdir()) == [bundle]


def test_a_yes_on_the_keyboard(bundle: Path, darker: Path) -> None:
    assert "activated: default" in run("calibrate", "--bundle", bundle, "--source", darker, answer="y\n").stdout


def test_each_source_has_its_own(bundle: Path, darker: Path, cells: list[Path]) -> None:
    run("calibrate", "--bundle", bundle, "--source", darker, "--source-name", "left", "--yes")
    named = {name: score(bundle, "--source-name", name, cells[0])[0]["calibration"] for name in ("left", "right")}
    assert named == {"left": "left.onnxruntime.0001", "right": "bundle"}


def test_it_holds_the_frames_for_the_drift_alarm(bundle: Path, darker: Path) -> None:
    run("calibrate", "--bundle", bundle, "--source", darker, "--yes")
    own = SideFiles(open_bundle(bundle)).chosen("onnxruntime", "default")
    assert own is not None and own.calibration.frames is not None and own.calibration.frames.values.shape == (40, 5)
    assert Scorer(open_bundle(bundle), source="default").rule.calibration.frames is not None


def test_frames_are_spread_evenly(bundle: Path, darker: Path) -> None:
    paths = [Path(f"{i}") for i in range(1000)]
    steps = np.diff([int(p.name) for p in evenly(paths, 300)])
    assert len(steps) == 299 and set(steps.tolist()) == {3, 4} and evenly(paths, 2000) == paths
    assert "frames: 25 of 40" in run("calibrate", "--bundle", bundle, "--source", darker, "--frames", 25).stdout


def test_unreadable_images_are_left_out_and_said(bundle: Path, darker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(darker, folder)
    (folder / "000.png").write_bytes(b"junk")
    done = run("calibrate", "--bundle", bundle, "--source", folder)
    assert "frames: 39 of 40" in done.stdout and "1 unreadable and left out" in done.stdout
    assert "000.png: not an image" in done.stdout


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few(bundle: Path, darker: Path, tmp_path: Path, count: int) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(darker.iterdir())[:count]:
        shutil.copy(path, folder)
    said = {0: "no images in this folder", 1: "at least 2 are needed", 5: "you have 5: nothing is rejected"}[count]
    done = run("calibrate", "--bundle", bundle, "--source", folder, "--yes", code=2)
    assert said in done.stderr
    assert {p.name for p in bundle.parent.iterdir()} == {"cells.ahl", "few"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give --source PLACE, or --undo alone"),
        (["--undo", "--source", "{line}"], "Give --source PLACE, or --undo alone"),
        (["--undo"], "no calibration for onnxruntime to roll back"),
        (["--source", "{line}", "--alpha", "0"], "alpha is 0"),
        (["--source", "{line}", "--alpha", "nan"], "alpha is nan"),
        (["--source", "{line}", "--confidence", "1"], "confidence is 1"),
        (["--source", "{line}", "--frames", "1"], "--frames"),
        (["--source", "{line}", "--source-name", "../x"], "source name '../x'"),
        (["--source", "{gone}"], "not a folder"),
        (["--source", "{line}", "--engine", "x"], "'x'"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    bundle: Path, darker: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    filled = [a.format(line=darker, gone=tmp_path / "gone") for a in arguments]
    assert said in run("calibrate", "--bundle", bundle, "--yes", *filled, code=2).stderr
    assert list(bundle.parent.iterdir()) == [bundle]


def test_a_score_that_is_no_number(make_bundle: Callable[..., Path], darker: Path) -> None:
    """A graph that divides zero by zero: nothing is calibrated on it."""
    import onnx
    from onnx import numpy_helper

    from ahl_runtime.bundle.bundle import open_bundle as opened

    plain = opened(make_bundle())
    model = onnx.load_model_from_string(plain.read("model.onnx"))
    white = next(i for i in model.graph.initializer if i.name == "white")
    white.CopyFrom(numpy_helper.from_array(np.array(np.nan, np.float32), "white"))
    path = make_bundle(members={"model.onnx": model.SerializeToString()})
    done = run("calibrate", "--bundle", path, "--source", darker, "--yes", code=2)
    assert "NaN or infinite" in done.stderr and list(path.parent.iterdir()) == [path]


def test_a_damaged_or_foreign_side_file_stops_all_but_undo(
    bundle: Path, darker: Path, cells: list[Path], make_bundle: Callable[..., Path]
) -> None:
    run("calibrate", "--bundle", bundle, "--source", darker, "--yes")
    make_bundle(fields={"name": "update"})
    (side,) = bundle.parent.glob("cells.ahl.calibrations/*.zip")
    kept = side.read_bytes()
    for body, said in ((kept, "it belongs to bundle"), (kept[:900], "refused: ")):
        side.write_bytes(body)
        for command in (["score", cells[0]], ["calibrate", "--source", darker, "--yes"]):
            assert said in run(*command, "--bundle", bundle, code=2).stderr
        assert f"source default on onnxruntime: fail: {side}: refused: " in run("check", bundle, code=1).stdout
        assert side.read_bytes() == body
    assert score(bundle, "--as-exported", cells[0])[0]["calibration"] == "bundle"
    run("calibrate", "--bundle", bundle, "--undo")
    assert score(bundle, cells[0])[0]["calibration"] == "bundle"


@pytest.fixture
def film(darker: Path, tmp_path: Path) -> Path:
    """What a camera of the line sees: the forty cells, as Motion JPEG."""
    path = tmp_path / "line.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width = stream.height = 300
        stream.pix_fmt = "yuvj420p"
        for cell in sorted(darker.iterdir()):
            frame = av.VideoFrame.from_image(Image.open(cell).convert("RGB"))
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode())
    return path


def test_frames_of_a_camera(bundle: Path, film: Path) -> None:
    done = run("calibrate", "--bundle", bundle, "--source", f"video:{film}", "--frames", 30, "--yes")
    assert f"frames: 30 of video:{film}" in done.stdout
    assert SideFiles(open_bundle(bundle)).active("onnxruntime", "default") is not None


def test_a_source_of_the_settings_is_cut_out_as_the_line_does(bundle: Path, film: Path, tmp_path: Path) -> None:
    settings = tmp_path / "line.toml"
    settings.write_text(
        f'[model]\nbundle = "{bundle}"\n[[source]]\nname = "left"\nkind = "video"\npath = "{film}"\n'
        "roi = { x = 0, y = 0, width = 150, height = 300 }\n"
    )
    asked = ("calibrate", "--bundle", bundle, "--config", settings)
    assert "no source 'right': there is left" in run(*asked, "--source", "right", code=2).stderr
    run(*asked, "--source", "left", "--yes")
    side = SideFiles(open_bundle(bundle))
    assert side.active("onnxruntime", "default") is None
    found = side.active("onnxruntime", "left")
    with av.open(str(film)) as container:
        halves = [frame.to_ndarray(format="rgb24")[:, :150] for frame in container.decode(video=0)]
    scorer = Scorer(open_bundle(bundle))
    wanted = sorted(scorer.score(np.ascontiguousarray(half)).score for half in halves)
    assert found is not None
    assert np.allclose(np.sort(found.calibration.scores), wanted, atol=1e-6)


def test_a_camera_that_is_not_there(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = VideoSource(name="film", kind="video", path=Path("gone.avi"), retry=0.1)
    monkeypatch.setattr("ahl_runtime.line.sources.collect._ABSENT", 1.0)
    with pytest.raises(SourceError, match=r"film: no frame for 1 s: .*gone\.avi: no such file"):
        list(collect(part, 3, 0.0, lambda said: None))


def test_an_absent_camera_is_named(bundle: Path, tmp_path: Path) -> None:
    done = run("calibrate", "--bundle", bundle, "--source", f"camera:{tmp_path}/video9", "--yes", code=2)
    assert f"error: camera1: no frame for 10 s: {tmp_path}/video9: No such file or directory" in done.stderr


def test_frames_are_taken_apart(film: Path) -> None:
    part = VideoSource(name="film", kind="video", path=film, realtime=True)
    taken = list(collect(part, 100, 0.5, lambda said: None))
    assert 2 <= len(taken) <= 4  # of 1.3 seconds
    assert len(list(collect(part, 2, 0.0, lambda said: None))) == 2


def test_what_cannot_be_collected(bundle: Path) -> None:
    push = PushSource(name="push", kind="push")
    with pytest.raises(SourceError, match="push"):
        next(collect(push, 3, 0.0, lambda said: None))
    assert "expected one of" in run("calibrate", "--bundle", bundle, "--source", "tape:3", code=2).stderr
