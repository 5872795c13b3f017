"""Whole runs on a small real slice: refused, killed, resumed, repeated."""

import json
import shutil
import subprocess
import sys
import time

import pytest
import torch

from ahl_train.config import TrainConfig
from ahl_train.data.images import load
from ahl_train.data.readers import load_dataset
from ahl_train.errors import ConfigError, DataError, RunError
from ahl_train.features.backbone import BackboneSpec
from ahl_train.run import RunFolder, load_run
from ahl_train.training import deal, train


@pytest.fixture(scope="module")
def cells(tmp_path_factory, copied):
    """40 normal solar cells and 6 broken ones, mono and poly."""
    elpv = load_dataset("elpv")
    chosen = [*elpv.normals[::37][:40], *elpv.anomalies[:3], *elpv.anomalies[-3:]]
    return copied(tmp_path_factory.mktemp("cells"), chosen)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def settings(cells, **changes):
    return TrainConfig(str(cells), **{"system": "ahl-devnet", "shots": 4, "augmentations": ("cutmix",), **changes})


@pytest.fixture(scope="module")
def whole(cells, cache, tmp_path_factory):
    """A run that nothing disturbed."""
    return train(settings(cells), tmp_path_factory.mktemp("runs") / "whole", cache=cache)


def test_copies_of_an_image_are_left_out_and_named(cells, tmp_path):
    """Held out of what was trained on its copy, an image would promise more than holds. Labels are told apart."""
    copied = shutil.copytree(cells, tmp_path / "cells")
    normal, anomaly = (sorted((copied / folder).rglob("*.png"))[0] for folder in ("train", "test"))
    for name in ("copy", "again"):
        shutil.copy(normal, normal.with_name(f"{name}.png"))
    shutil.copy(anomaly, anomaly.with_name("copy.png"))
    _, dealt, left_out = deal(settings(copied))
    assert len(left_out) == 3 and sum(f"the same image as {normal}" in line for line in left_out) == 2
    everything = [*dealt.train_normal, *dealt.calibration_normal, *dealt.train_anomaly, *dealt.test]
    contents = [s.path.read_bytes() for s in everything]
    assert len(set(contents)) == len(contents) == 46


def test_too_few_normals_are_refused_before_a_folder_is_made(cells, tmp_path):
    few = tmp_path / "cells"
    for i, image in enumerate(sorted((cells / "train").rglob("*.png"))[:20]):
        (few / "train/good").mkdir(parents=True, exist_ok=True)
        shutil.copy(image, few / "train/good" / f"{i}.png")
    config = TrainConfig(str(few), shots=0, calibrate="split")
    with pytest.raises(DataError, match=r"needs at least 13 train normals, there are 10; 5 calibrate and 5 test"):
        train(config, tmp_path / "out")
    for image in sorted((few / "train/good").iterdir())[1:]:
        shutil.copy(sorted((few / "train/good").iterdir())[0], image)
    said = []
    with pytest.raises(DataError, match="needs at least 13 train normals, there are 1"):
        train(TrainConfig(str(few), shots=0), tmp_path / "out", report=said.append)
    assert said[-1] == "19 images left out"
    assert not (tmp_path / "out").exists()


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
from ahl_train.training import train
import json
train(TrainConfig.checked(json.loads(sys.argv[1])), Path(sys.argv[2]), cache=Path(sys.argv[3]))
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
    with pytest.raises(RunError, match="continue with --resume"):
        train(whole.config, whole.folder, cache=cache)
    with pytest.raises(RunError, match="shots: 4 in the folder, 3 requested"):
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
    with pytest.raises(RunError, match="a run on float16 features, float32 requested: choose another --out"):
        train(config, out, resume=True, cache=cache, precision="float32")
    near = train(config, tmp_path / "near", cache=cache).model.base.state_dict()
    for name, tensor in half.model.base.state_dict().items():
        assert not torch.equal(tensor, near[name])
        torch.testing.assert_close(tensor, near[name], atol=0.05, rtol=0.05)


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
        train(settings(cells, system="ahl-density", epochs=7), tmp_path / f"run{i}", cache=tmp_path / f"cache{i}")
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
    run = train(settings(cells, system="ahl-density", shots=0), tmp_path / "run", cache=cache)
    normal, broken = (torch.from_numpy(load(run.split.test[i]).copy())[None] for i in (0, -1))
    assert torch.isfinite(torch.cat([run.model.score(normal)[0], run.model.score(broken)[0]])).all()


@pytest.mark.slow
def test_no_anomaly_left_to_test_is_said(cells, cache, tmp_path):
    for shots, left in ((6, 0), (5, 1)):
        said = []
        train(settings(cells, shots=shots, epochs=1), tmp_path / str(shots), cache=cache, report=said.append)
        assert any("none remains for the test" in line for line in said) == (left == 0)


@pytest.mark.slow
def test_a_truncated_image_is_named_and_left_out(cells, cache, tmp_path):
    root = tmp_path / "cells"
    shutil.copytree(cells, root)
    cut = min((root / "train" / "good").iterdir())
    cut.write_bytes(cut.read_bytes()[:500])
    said = []
    run = train(settings(root, epochs=1), tmp_path / "run", cache=cache, report=said.append)
    assert str(cut) in said[0]
    assert said[1] == "1 images left out"
    assert [str(cut) in line for line in run.record["left_out"]] == [True]


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"shots": 7}, DataError), ({"system": "ahl-best"}, ConfigError), ({"calibration": 40}, DataError)],
)
def test_what_cannot_be_trained_leaves_no_folder(cells, tmp_path, changes, error):
    with pytest.raises(error):
        train(settings(cells, **changes), tmp_path / "run", cache=tmp_path / "cache")
    assert not list(tmp_path.iterdir())
