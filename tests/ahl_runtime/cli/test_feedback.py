"""From a decision to a marked folder, by the command line alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ahl_runtime.core.decode import decode


def run(*arguments: object, code: int = 0) -> list[dict[str, Any]]:
    done = call(*arguments, code=code)
    return [json.loads(line) for line in done.stdout.splitlines()]


def call(*arguments: object, code: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ahl_runtime.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    if code == 2:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done


def error(*arguments: object) -> str:
    return call(*arguments, code=2).stderr


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "line.sqlite"


@pytest.fixture
def frames(tmp_path: Path, cells: list[Path]) -> Path:
    """Two cells, one nearly black; a JPEG under an odd name."""
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.open(cells[0]).save(folder / "a.png")
    Image.fromarray(decode(cells[1]) // 20).save(folder / "b.png")
    Image.open(cells[2]).convert("RGB").save(folder / "c.dat", "JPEG")
    return folder


def test_the_road(bundle_path: Path, frames: Path, store: Path, tmp_path: Path) -> None:
    images = [frames / name for name in ("a.png", "b.png", "c.dat")]
    lines = run("score", "--bundle", bundle_path, "--store", store, "--source-name", "left", *images)
    words = {"pass": "right", "reject": "right", "unsure": "good"}
    assert lines[1]["decision"] == "reject"
    labels = {}
    for line in lines:
        (marked,) = run("feedback", "mark", line["id"], words[line["decision"]], "--note", "seen", "--store", store)
        labels[line["id"]] = marked["label"]
    listed = run("feedback", "list", "--marked", "--store", store)
    assert {row["id"]: row["label"] for row in listed} == labels
    assert [row["score"] for row in listed] == [line["score"] for line in lines]
    assert {(row["source"], row["note"], row["engine"]) for row in listed} == {("left", "seen", "onnxruntime")}
    (counts,) = run("feedback", "export", tmp_path / "marked", "--store", store)
    assert counts["anomaly"] == list(labels.values()).count("anomaly") >= 1 and counts["good"] + counts["anomaly"] == 3
    about = [json.loads(line) for line in (tmp_path / "marked" / "feedback.jsonl").read_text().splitlines()]
    for row, image in zip(about, images, strict=True):
        assert (tmp_path / "marked" / row["file"]).read_bytes() == image.read_bytes()
        assert row["file"].startswith(labels[row["id"]] + "/") and row["image"] == str(image)
    assert sorted(Path(row["file"]).suffix for row in about) == [".jpeg", ".png", ".png"]
    assert sorted(p.name for p in (tmp_path / "marked").iterdir()) == ["anomaly", "feedback.jsonl", "good"]


def test_decisions_of_a_batch_are_kept_as_they_were_told(bundle_path: Path, frames: Path, store: Path) -> None:
    lines = run("score", "--bundle", bundle_path, "--store", store, "--fdr", 0.3, frames)
    kept = {row["id"]: (row["verdict"], row["threshold"]) for row in run("feedback", "list", "--store", store)}
    assert kept == {line["id"]: (line["decision"], line["threshold"]) for line in lines} and len(kept) == 2


def test_an_image_that_cannot_be_scored_is_not_kept(bundle_path: Path, frames: Path, store: Path) -> None:
    (frames / "d.png").write_bytes(b"junk")
    assert "id" not in run("score", "--bundle", bundle_path, "--store", store, frames, code=2)[-1]
    assert len(run("feedback", "list", "--store", store)) == 2


def test_errors_are_one_line(bundle_path: Path, frames: Path, store: Path, tmp_path: Path) -> None:
    assert "no such store" in error("feedback", "list", "--store", store)
    assert not store.exists()
    (line, _) = run("score", "--bundle", bundle_path, "--store", store, frames)
    assert "no image is marked yet" in error("feedback", "export", tmp_path / "out", "--store", store)
    assert "no decision 'x'" in error("feedback", "mark", "x", "right", "--store", store)
    assert "right" in error("feedback", "mark", line["id"], "perhaps", "--store", store)
    assert "not a database" in error("feedback", "list", "--store", bundle_path)
    assert "not a database" in error("score", "--bundle", bundle_path, "--store", bundle_path, frames)
    run("feedback", "mark", line["id"], "good", "--store", store)
    assert "choose a new folder" in error("feedback", "export", frames, "--store", store)
    assert "cannot be written" in error("feedback", "export", frames / "a.png" / "x", "--store", store)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]
    (tmp_path / "empty").mkdir()
    run("feedback", "export", tmp_path / "empty", "--store", store)
    assert len(list((tmp_path / "empty" / "good").iterdir())) == 1
