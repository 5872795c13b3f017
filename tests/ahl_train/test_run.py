"""The run folder, and whole runs on a small real slice: refused, killed, resumed, repeated, out of space."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from ahl_train.backbone import BackboneSpec
from ahl_train.config import TrainConfig
from ahl_train.datasets import Sample, load_dataset
from ahl_train.errors import ConfigError, DataError, RunError
from ahl_train.images import load
from ahl_train.protocol import Split
from ahl_train.run import RunFolder, load_run
from ahl_train.train import train

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
    assert TrainConfig.from_json(record["settings"]) == CONFIG
    assert record["versions"]["torch"] == version("torch")
    assert {"python", "numpy", "timm", "scikit-learn"} <= set(record["versions"])
    assert record["left_out"] == ["x.png: cut"]
    assert names(folder) == ["run.json", "split.json"]


def test_the_split_is_read_back_as_it_was_dealt(folder):
    assert folder.load_split() == SPLIT


def test_an_existing_run_is_not_overwritten(folder):
    before = (folder.path / "run.json").read_bytes()
    with pytest.raises(RunError, match=r"holds a run: go on with --resume, or choose another --out"):
        folder.create(CONFIG, SPLIT, {})
    assert (folder.path / "run.json").read_bytes() == before


def test_a_run_of_other_settings_is_not_resumed_and_they_are_named(folder):
    folder.require_same(TrainConfig("elpv", shots=1))
    with pytest.raises(RunError) as raised:
        folder.require_same(TrainConfig("elpv", shots=10, augmentations=("draem",)))
    assert "shots: 1 there, 10 asked" in str(raised.value)
    assert "augmentations: ['cutmix', 'cutpaste', 'draem'] there, ['draem'] asked" in str(raised.value)
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
        ("model.pt", None, "has not finished: go on with ahl train --resume"),
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
    with pytest.raises(RunError, match="cannot be made"):
        RunFolder(tmp_path / "file" / "run").create(CONFIG, SPLIT, {})


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


# Whole runs


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """40 normal solar cells and 6 broken ones, mono and poly, in MVTec AD layout."""
    root = tmp_path_factory.mktemp("cells")
    elpv = load_dataset("elpv")
    chosen = [*elpv.normals[::37][:40], *elpv.anomalies[:3], *elpv.anomalies[-3:]]
    for i, sample in enumerate(chosen):
        target = root / ("test" if sample.label else "train") / sample.kind
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.path, target / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def settings(cells, **changes):
    return TrainConfig(str(cells), **{"system": "ahl-devnet", "shots": 4, "augmentations": ("cutmix",), **changes})


@pytest.fixture(scope="module")
def whole(cells, cache, tmp_path_factory):
    """A run that nothing disturbed."""
    return train(settings(cells), tmp_path_factory.mktemp("runs") / "whole", cache=cache)


def epochs_logged(out):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [entry["epoch"] for line in lines if "epoch" in (entry := json.loads(line))]


def assert_same(one, other):
    state, expected = one.model.base.state_dict(), other.model.base.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name]), name


_TRAIN = """
import sys
from importlib.metadata import version
from pathlib import Path
import torch
torch.set_num_threads(1)
from ahl_train.config import TrainConfig
from ahl_train.run import RunFolder
from ahl_train.train import train
import json
train(TrainConfig.from_json(json.loads(sys.argv[1])), Path(sys.argv[2]), cache=Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_after_its_last_epoch_to_the_same_parameters(cells, cache, whole, tmp_path):
    """kill -9 once psi has begun to weigh; at most the epoch in the making is lost."""
    config, out = settings(cells), tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", _TRAIN, json.dumps(config.to_json()), str(out), str(cache)])
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 6:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    logged = len(epochs_logged(out))
    assert not (out / "model.pt").exists()
    assert logged < config.steps.epochs
    assert RunFolder(out).load("checkpoint.pt")["epoch"] >= logged - 1

    with pytest.raises(RunError, match="has not finished"):
        load_run(out)
    assert_same(train(config, out, resume=True, cache=cache), whole)
    assert set(epochs_logged(out)) == set(range(1, config.steps.epochs + 1))
    assert len(epochs_logged(out)) <= config.steps.epochs + 1
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.folder.iterdir())


@pytest.mark.slow
def test_a_run_without_shots_of_the_net_logs_every_epoch_though_interrupted_anywhere(
    cells, cache, tmp_path, monkeypatch
):
    """Interrupted right before and right after an epoch is logged."""
    config, out, log = settings(cells, epochs=3), tmp_path / "run", RunFolder.log

    def before(folder, line):
        if line.get("epoch") == 2:
            raise KeyboardInterrupt
        log(folder, line)

    def after(folder, line):
        log(folder, line)
        if line.get("epoch") == 2:
            raise KeyboardInterrupt

    for interrupted in (before, after):
        monkeypatch.setattr(RunFolder, "log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, out, resume=True, cache=cache)
    monkeypatch.setattr(RunFolder, "log", log)
    train(config, out, resume=True, cache=cache)
    assert epochs_logged(out) == [1, 2, 2, 3]


@pytest.mark.slow
def test_a_finished_run_is_refused_without_resume_and_unchanged_by_it(cells, cache, whole):
    with pytest.raises(RunError, match="go on with --resume"):
        train(whole.config, whole.folder, cache=cache)
    with pytest.raises(RunError, match="shots: 4 there, 3 asked"):
        train(settings(cells, shots=3), whole.folder, resume=True, cache=cache)
    epochs = epochs_logged(whole.folder)
    assert_same(train(whole.config, whole.folder, resume=True, cache=cache), whole)
    assert epochs_logged(whole.folder) == epochs == list(range(1, whole.config.steps.epochs + 1))


@pytest.mark.slow
def test_a_run_keeps_its_precision(cells, cache, whole, tmp_path):
    """On features of its own, near those of float32; whoever resumes it need not say so, and cannot change it."""
    config, out = settings(cells, epochs=1, augmentations=()), tmp_path / "half"
    half = train(config, out, cache=cache, precision="float16")
    assert (half.record["precision"], whole.record["precision"]) == ("float16", "float32")
    assert_same(train(config, out, resume=True, cache=cache), half)
    with pytest.raises(RunError, match="a run on float16 features, float32 asked: choose another --out"):
        train(config, out, resume=True, cache=cache, precision="float32")
    near = train(config, tmp_path / "near", cache=cache).model.base.state_dict()
    for name, tensor in half.model.base.state_dict().items():
        assert not torch.equal(tensor, near[name])
        torch.testing.assert_close(tensor, near[name], atol=0.05, rtol=0.05)


def test_a_run_of_before_precision_could_be_chosen_is_one_of_float32(folder):
    assert folder.require_precision("auto") == "float32"


@pytest.mark.slow
def test_a_run_is_dealt_and_read_back(cells, whole):
    dealt = whole.split
    groups = [{s.path for s in group} for group in (dealt.train_normal, dealt.calibration_normal, dealt.train_anomaly)]
    assert [len(g) for g in groups] == [20, 10, 4]
    assert not set.union(*groups) & {s.path for s in dealt.test}
    assert whole.record["backbone_digest"] == BackboneSpec().digest
    again = load_run(whole.folder)
    assert_same(again, whole)
    assert again.split == dealt


@pytest.mark.slow
def test_the_same_seed_twice_gives_the_same_scores(cells, tmp_path):
    """The default system; each run with a cache of its own, so that the features are made twice too."""
    runs = [
        train(settings(cells, system="ahl-plus", epochs=7), tmp_path / f"run{i}", cache=tmp_path / f"cache{i}")
        for i in range(2)
    ]
    frames = torch.stack([torch.from_numpy(load(s).copy()) for s in runs[0].split.test[-2:]])
    one, two = (run.model.score(frames) for run in runs)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
        assert torch.isfinite(a).all()


@pytest.mark.slow
def test_a_run_whose_heads_had_other_shapes_is_told_in_one_line(whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole.folder, other)
    state = torch.load(other / "model.pt", weights_only=True)
    torch.save({name: torch.zeros(3, *t.shape) for name, t in state.items()}, other / "model.pt")
    with pytest.raises(RunError, match="other was made by another version"):
        load_run(other)


@pytest.mark.slow
def test_another_seed_gives_another_run(cells, cache, whole, tmp_path):
    other = train(settings(cells, seed=1, epochs=1), tmp_path / "run", cache=cache)
    assert other.split.train_normal != whole.split.train_normal


@pytest.mark.slow
def test_the_default_system_trains_without_any_anomaly(cells, cache, tmp_path):
    run = train(settings(cells, system="ahl-plus", shots=0), tmp_path / "run", cache=cache)
    normal, broken = (torch.from_numpy(load(run.split.test[i]).copy())[None] for i in (0, -1))
    assert torch.isfinite(torch.cat([run.model.score(normal)[0], run.model.score(broken)[0]])).all()


@pytest.mark.slow
def test_a_truncated_image_is_named_and_left_out(cells, cache, tmp_path):
    root = tmp_path / "cells"
    shutil.copytree(cells, root)
    cut = min((root / "train" / "good").iterdir())
    cut.write_bytes(cut.read_bytes()[:500])
    said = []
    run = train(settings(root, epochs=1), tmp_path / "run", cache=cache, report=said.append)
    assert str(cut) in said[0]
    assert said[-1] == "1 images left out"
    assert [str(cut) in line for line in run.record["left_out"]] == [True]


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"shots": 7}, DataError), ({"system": "ahl-best"}, ConfigError), ({"calibration": 40}, DataError)],
)
def test_what_cannot_be_trained_leaves_no_folder(cells, tmp_path, changes, error):
    with pytest.raises(error):
        train(settings(cells, **changes), tmp_path / "run", cache=tmp_path / "cache")
    assert not list(tmp_path.iterdir())
