"""Feedback trains and nothing else: never a test or calibration image, each file once, all of it on record."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import elpv_dataset
import pytest
import torch
from PIL import Image

from ahl_train.config import TrainConfig
from ahl_train.data import feedback
from ahl_train.data.images import load
from ahl_train.data.readers import Sample
from ahl_train.data.split import Split
from ahl_train.errors import ConfigError, DataError
from ahl_train.run import load_run
from ahl_train.training import train

IMAGES = Path(elpv_dataset.__path__[0]) / "data" / "images"
CELLS = sorted(IMAGES.glob("cell*.png"))


@pytest.fixture
def dealt():
    normal = [Sample(c, 0, "good") for c in CELLS[:6]]
    broken = [Sample(c, 1, "crack") for c in CELLS[6:9]]
    return Split(tuple(normal[:3]), (normal[3],), (broken[0],), (*normal[4:], *broken[1:]), "general", None, 1, 0)


@pytest.fixture
def marked(tmp_path):
    """Two normals and one anomaly that the split does not know."""
    for label, cells in (("good", CELLS[20:22]), ("anomaly", CELLS[22:23])):
        (tmp_path / "marked" / label).mkdir(parents=True)
        for cell in cells:
            shutil.copy(cell, tmp_path / "marked" / label)
    return tmp_path / "marked"


def test_it_joins_the_training_side_alone(dealt, marked):
    grown, record = feedback.add(dealt, marked)
    assert grown.train_normal[:3] == dealt.train_normal and grown.train_anomaly[:1] == dealt.train_anomaly
    assert [s.path.name for s in grown.train_normal[3:]] == [c.name for c in CELLS[20:22]]
    assert [(s.path.name, s.label, s.kind) for s in grown.train_anomaly[1:]] == [(CELLS[22].name, 1, "anomaly")]
    assert grown.test == dealt.test and grown.calibration_normal == dealt.calibration_normal
    assert (record["good"], record["anomaly"], record["left_out"]) == (2, 1, [])
    assert len(record["sha256"]) == 3 and json.loads(json.dumps(record)) == record


@pytest.mark.parametrize(
    ("group", "label", "said"),
    [
        ("test", "good", "it is a test image"),
        ("test", "anomaly", "it is a test image"),
        ("calibration_normal", "good", "it is a calibration image"),
        ("train_normal", "good", "it is a training image"),
        ("train_anomaly", "anomaly", "it is a training image"),
    ],
)
def test_an_image_with_a_place_keeps_it(dealt, marked, group, label, said):
    """Under another name and in another format too: the pixels count."""
    known = getattr(dealt, group)[-1]
    Image.open(known.path).convert("RGB").save(marked / label / "renamed.bmp")
    grown, record = feedback.add(dealt, marked)
    assert record["left_out"] == [f"{marked / label / 'renamed.bmp'}: {said}"]
    assert len(grown.train_normal) == 5 and len(grown.train_anomaly) == 2


@pytest.mark.parametrize("box", [(0, 0, 300, 300), (0, 0, 100, 100)])
def test_neither_a_tested_patch_nor_its_whole_image_trains(dealt, marked, box):
    patch = Sample(CELLS[15], 1, "crack", crop=(0, 0, 100, 100))
    Image.open(patch.path).crop(box).save(marked / "anomaly" / "seen.png")
    _, record = feedback.add(replace(dealt, test=(*dealt.test, patch)), marked)
    assert record["left_out"] == [f"{marked / 'anomaly' / 'seen.png'}: it is a test image"]


def test_a_file_twice_trains_once(dealt, marked):
    shutil.copy(CELLS[20], marked / "good" / "z.png")
    grown, record = feedback.add(dealt, marked)
    assert len(grown.train_normal) == 5 and record["left_out"] == [
        f"{marked / 'good' / 'z.png'}: it is in the feedback twice"
    ]


def test_both_labels_at_once_are_refused(dealt, marked):
    shutil.copy(CELLS[20], marked / "anomaly" / "z.png")
    with pytest.raises(DataError, match=r"z\.png is the same image as .*: it cannot be good and anomaly"):
        feedback.add(dealt, marked)


def test_a_damaged_image_is_left_out(dealt, marked):
    (marked / "good" / "cut.png").write_bytes(CELLS[23].read_bytes()[:5000])
    _, record = feedback.add(dealt, marked)
    assert record["good"] == 2 and "cut.png" in record["left_out"][0]


def test_one_kind_is_enough_and_none_is_not(dealt, marked, tmp_path):
    shutil.rmtree(marked / "anomaly")
    assert feedback.add(dealt, marked)[1]["anomaly"] == 0
    for empty in (tmp_path / "gone", tmp_path):
        with pytest.raises(DataError, match="no images in its folders good and anomaly"):
            feedback.add(dealt, empty)


def test_it_goes_with_split_calibration_alone(marked):
    with pytest.raises(ConfigError, match="choose split"):
        TrainConfig("elpv", calibrate="cross", feedback=marked)
    config = TrainConfig("elpv", feedback=marked)
    assert TrainConfig.checked(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.slow
def test_a_run_with_feedback(marked, tmp_path):
    """Trained, read back and resumed: the seen anomalies are the shots and the feedback's."""
    root = tmp_path / "set"
    for folder, cells in (("train/good", CELLS[30:50]), ("test/good", CELLS[50:54]), ("test/crack", CELLS[6:12])):
        (root / folder).mkdir(parents=True)
        for cell in cells:
            shutil.copy(cell, root / folder)
    shutil.copy(CELLS[50], marked / "good" / "tested.png")
    said = []
    config = TrainConfig(str(root), shots=2, epochs=1, calibration=5, feedback=marked)
    made = train(config, tmp_path / "run", cache=tmp_path / "cache", report=said.append)
    assert any("tested.png: it is a test image" in line for line in said)
    assert "feedback: 2 normals and 1 anomalies added to training" in said
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["feedback"]["good"], record["feedback"]["anomaly"]) == (2, 1)
    assert record["settings"]["feedback"] == str(marked)
    assert len(made.split.train_normal) == 17 and len(made.split.train_anomaly) == 3
    assert len(made.split.calibration_normal) == 5 and len(made.split.test) == 4 + 4
    assert load_run(tmp_path / "run").model.head_names == made.model.head_names
    (tmp_path / "run" / "model.pt").unlink()
    program = Path(sys.executable).with_name("ahl")
    command = [program, "train", "--data", root, "--shots", "2", "--epochs", "1", "--calibration", "5"]
    command += ["--feedback", marked, "--out", tmp_path / "run", "--cache", tmp_path / "cache"]
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    resumed = load_run(tmp_path / "run")
    assert resumed.split == made.split
    image = torch.from_numpy(load(made.split.test[0]).copy())[None]
    assert resumed.model.score(image)[0].item() == pytest.approx(made.model.score(image)[0].item(), abs=1e-6)
