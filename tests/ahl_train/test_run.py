"""The run folder: read back, refused, whole after a full disk and a kill."""

import json
import multiprocessing
import os
import resource
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from ahl_train.config import TrainConfig
from ahl_train.data.readers import Sample
from ahl_train.data.split import Split
from ahl_train.errors import RunError
from ahl_train.features.backbone import BackboneSpec
from ahl_train.run import RunFolder, load_run

CONFIG = TrainConfig("elpv", shots=1)
SPLIT = Split(
    train_normal=(Sample(Path("n/0.png"), 0, "good", split="train"), Sample(Path("n/1.png"), 0, "good")),
    calibration_normal=(Sample(Path("n/2.png"), 0, "good"),),
    train_anomaly=(Sample(Path("a/0.png"), 1, "crack", mask=Path("m/0.png"), crop=(0, 1, 20, 30)),),
    test=(Sample(Path("n/3.png"), 0, "good"), Sample(Path("a/1.png"), 1, "crack")),
    setting="hard",
    seen_class="crack",
    shots=1,
    seed=3,
)


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "runs" / "one")
    made.create(CONFIG, SPLIT, {"supersample": 1, "backbone_digest": BackboneSpec().digest, "left_out": ["x.png: cut"]})
    return made


def names(folder):
    return sorted(p.name for p in folder.path.iterdir())


def in_child(work, *given):
    """In a process of its own, where a limit or a kill stays."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(work, *given).result(60)


# The folder


def test_a_run_folder_says_how_it_was_made(folder):
    record = folder.read_json("run.json")
    assert TrainConfig.checked(record["settings"]) == CONFIG
    assert record["versions"]["torch"] == version("torch")
    assert {"python", "numpy", "timm", "scikit-learn"} <= set(record["versions"])
    assert record["left_out"] == ["x.png: cut"]
    assert names(folder) == ["run.json", "split.json"]


def test_the_split_is_read_back_as_it_was_dealt(folder):
    assert folder.load_split() == SPLIT


def test_an_existing_run_is_not_overwritten(folder):
    before = (folder.path / "run.json").read_bytes()
    with pytest.raises(RunError, match=r"holds a run: continue with --resume, or choose another --out"):
        folder.create(CONFIG, SPLIT, {})
    assert (folder.path / "run.json").read_bytes() == before


def test_a_run_of_other_settings_is_not_resumed_and_they_are_named(folder):
    folder.require_same(TrainConfig("elpv", shots=1))
    with pytest.raises(RunError) as raised:
        folder.require_same(TrainConfig("elpv", shots=10, augmentations=("draem",)))
    assert "shots: 1 in the folder, 10 requested" in str(raised.value)
    assert "augmentations: ['cutmix', 'cutpaste', 'draem'] in the folder, ['draem'] requested" in str(raised.value)
    assert "seed" not in str(raised.value)


def test_a_run_of_other_weights_is_not_read(folder, tmp_path):
    folder.require_weights(BackboneSpec())
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    with pytest.raises(RunError, match=r"was made with other weights of tf_efficientnet_lite0 than .*other\.pth"):
        folder.require_weights(BackboneSpec(weights=other))


def test_tensors_are_saved_and_no_code_is_unpickled(folder):
    assert folder.load("checkpoint.pt") is None
    folder.save("checkpoint.pt", {"epoch": 3, "base": {"w": torch.arange(3.0)}})
    assert folder.load("checkpoint.pt")["base"]["w"].tolist() == [0.0, 1.0, 2.0]
    torch.save({"path": SPLIT}, folder.path / "checkpoint.pt")
    with pytest.raises(RunError, match="cannot be read"):
        folder.load("checkpoint.pt")


def test_metrics_are_appended_line_by_line(folder):
    folder.log({"epoch": 1})
    folder.log({"epoch": 2})
    assert [json.loads(line) for line in (folder.path / "metrics.jsonl").open()] == [{"epoch": 1}, {"epoch": 2}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "is not a run folder: run.json is missing"),
        ("run.json", b'{"settings": ', "cannot be read"),
        ("run.json", b"[1]", "not a JSON object"),
        ("run.json", b"\xff\xfe", "cannot be read"),
        ("model.pt", None, "has not finished: run the same ahl train again, with --resume"),
        ("model.pt", b"cut", "cannot be read"),
    ],
)
def test_a_folder_that_is_not_a_finished_run_is_refused(folder, name, content, message):
    file = folder.path / name
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RunError, match=message) as raised:
        load_run(folder.path)
    assert "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be created"):
        RunFolder(tmp_path / "file" / "run").create(CONFIG, SPLIT, {})


def test_a_run_of_before_precision_could_be_chosen_is_one_of_float32(folder):
    assert folder.require_precision("auto") == "float32"


# A full disk, a kill


def limited(work):
    """Run it with no file allowed to grow past 50 kB; the error's words."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        work()
    except RunError as error:
        return str(error)
    return "no error"


def save_large(path):
    return limited(lambda: RunFolder(path).save("checkpoint.pt", {"w": torch.zeros(100_000)}))


def create_large(path):
    return limited(lambda: RunFolder(path).create(CONFIG, SPLIT, {"left_out": ["x" * 100_000]}))


def log_large(path):
    return limited(lambda: RunFolder(path).log({"x": "x" * 100_000}))


def test_a_full_disk_leaves_the_previous_checkpoint(folder):
    folder.save("checkpoint.pt", {"epoch": 4})
    message = in_child(save_large, folder.path)
    assert "checkpoint.pt cannot be written" in message
    assert "free space, then --resume" in message
    assert "\n" not in message
    assert folder.load("checkpoint.pt") == {"epoch": 4}
    assert names(folder) == ["checkpoint.pt", "run.json", "split.json"]


def test_a_full_disk_leaves_no_half_made_run(tmp_path):
    message = in_child(create_large, tmp_path / "run")
    assert "run.json cannot be written" in message
    assert names(RunFolder(tmp_path / "run")) == ["split.json"]
    RunFolder(tmp_path / "run").create(CONFIG, SPLIT, {})


def test_a_full_disk_stops_the_log_with_one_line(folder):
    assert "metrics.jsonl cannot be written" in in_child(log_large, folder.path)


def die_while_saving(path):
    def save(state, file):
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save
    RunFolder(path).save("checkpoint.pt", {"epoch": 5})


def test_a_kill_while_saving_leaves_the_previous_checkpoint_and_nothing_for_long(folder):
    folder.save("checkpoint.pt", {"epoch": 4})
    with pytest.raises(BrokenProcessPool):
        in_child(die_while_saving, folder.path)
    assert folder.load("checkpoint.pt") == {"epoch": 4}
    folder.save("checkpoint.pt", {"epoch": 5})
    assert folder.load("checkpoint.pt") == {"epoch": 5}
    assert names(folder) == ["checkpoint.pt", "run.json", "split.json"]
