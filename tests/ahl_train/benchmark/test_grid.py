"""The bench on a small slice of real images: what it keeps, what it skips, and how a cell fails."""

import json
from dataclasses import replace

import pytest
import torch

from ahl_train.api import evaluate
from ahl_train.benchmark import grid as benchmark
from ahl_train.benchmark.grid import Grid, choose_systems, run_grid
from ahl_train.benchmark.results import Cell, Results, open_results, read_results
from ahl_train.config import TrainConfig
from ahl_train.data.readers import load_dataset
from ahl_train.data.split import split
from ahl_train.data.synth import write_dataset
from ahl_train.errors import ConfigError, DataError, RunError
from ahl_train.features import Extractor, FeatureStore
from ahl_train.features.backbone import BackboneSpec
from ahl_train.systems import SYSTEMS, system
from ahl_train.training import train

FIELDS = {"system", "setting", "seen_class", "shots", "seed", "auroc", "seconds", "data", "schedule", "backbone"}


@pytest.fixture(scope="module")
def cells(tmp_path_factory, elpv_cells):
    """45 train and 10 test normals, 4 + 4 anomalies of ELPV."""
    return elpv_cells(tmp_path_factory.mktemp("cells"), train=45, test=10)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


def grid(cells, **other):
    return Grid(**{"data": str(cells), "settings": ("general",), "shots": (2,), "seeds": 2, "epochs": 1, **other})


def aurocs(out):
    return {Cell.of(line): line["auroc"] for line in read_results(out)}


@pytest.mark.slow
def test_an_interrupted_bench_goes_on_where_it_was(cells, cache, tmp_path):
    asked = grid(cells, systems=("devnet",), settings=("general", "hard"), shots=(1, 2), seeds=1)
    file = run_grid(asked, tmp_path, cache=cache)
    whole = file.read_text().splitlines(keepends=True)
    assert len(whole) == 6  # 2 shots, general and two classes
    assert all(json.loads(line).keys() >= FIELDS for line in whole)
    before = aurocs(tmp_path)
    file.write_text("".join(whole[:-1]) + whole[-1][:40])
    said = []
    run_grid(asked, tmp_path, cache=cache, report=said.append)
    after = file.read_text().splitlines(keepends=True)
    assert after[:-1] == whole[:-1]
    assert "5 of 6 cells are done already" in said
    assert aurocs(tmp_path) == before  # same seed, same AUROC
    run_grid(asked, tmp_path, cache=cache)
    assert file.read_text().splitlines(keepends=True) == after


@pytest.mark.slow
def test_the_best_epoch_stands_beside_the_last_and_changes_nothing(cells, cache, tmp_path):
    systems = ("devnet", "dra", "ahl-density")  # dra has batch norms, whose statistics are set after an epoch
    asked = grid(cells, systems=systems, seeds=1, epochs=4)
    run_grid(asked, tmp_path / "last", cache=cache)
    run_grid(replace(asked, epoch="best"), tmp_path / "best", cache=cache)
    assert aurocs(tmp_path / "best") == aurocs(tmp_path / "last")
    assert all("auroc_best" not in line and line["epoch"] == "last" for line in read_results(tmp_path / "last"))
    by_epochs = [
        read_results(run_grid(replace(asked, epochs=n), tmp_path / f"{n}", cache=cache).parent) for n in (1, 2, 3)
    ]
    for line in read_results(tmp_path / "best"):
        cell = Cell.of(line)
        # An epoch's figure is that of a training which ends there: the rate falls only after eight or more.
        ends = [one["auroc"] for lines in by_epochs for one in lines if Cell.of(one) == cell]
        assert line["auroc_best"] == max(*ends, line["auroc"])
    with pytest.raises(RunError, match="epoch: 'last' in the folder, 'best' requested"):
        run_grid(replace(asked, epoch="best"), tmp_path / "last", cache=cache)


@pytest.mark.slow
def test_after_an_epoch_comes_what_would_be_returned(cells, cache):
    asked, dataset = grid(cells, epochs=2), load_dataset(str(cells))
    cell = Cell("dra", "general", None, 2, 0)
    extractor = Extractor(BackboneSpec())
    base, kept = system("dra").base(extractor, 2), []
    store, dealt = FeatureStore(cache, extractor), benchmark.deal(cell, dataset)
    benchmark.learn(base, asked.config(cell), dealt, store, False, after_epoch=kept.append)
    assert len(kept) == 2
    assert not any(one.training for one in kept)
    first, last, returned = (one.state_dict() for one in (*kept, base))
    assert all(torch.equal(last[name], values) for name, values in returned.items())  # statistics of batch norms too
    assert not all(torch.equal(first[name], values) for name, values in returned.items())


@pytest.mark.slow
def test_pixels_are_judged_as_those_of_a_run(tmp_path):
    data = write_dataset(tmp_path / "data", normals=30, anomalies=8, size=128)
    asked = Grid(str(data), ("general",), (2,), ("devnet",), seeds=1, epochs=1, pixel=True)
    (line,) = read_results(run_grid(asked, tmp_path / "bench", cache=tmp_path / "cache").parent)
    config = asked.config(Cell.of(line))
    found = evaluate(train(config, tmp_path / "run", cache=tmp_path / "cache").folder, pixel=True)
    # A bench reads maps' features in half precision, a run computes them.
    assert line["pixel_auroc"] == pytest.approx(found.pixel_auroc, abs=2e-3)
    assert line["pixel_aupro"] == pytest.approx(found.pixel_aupro, abs=2e-3)
    with pytest.raises(RunError, match="pixel: True in the folder, False requested"):
        run_grid(replace(asked, pixel=False), tmp_path / "bench", cache=tmp_path / "cache")


@pytest.mark.slow
def test_a_set_without_masks_has_no_figures_of_pixels(cells, cache, tmp_path):
    run_grid(grid(cells, systems=("devnet",), seeds=1, pixel=True), tmp_path, cache=cache)
    assert [line.keys() & {"pixel_auroc", "pixel_aupro"} for line in read_results(tmp_path)] == [set()]


@pytest.mark.slow
def test_no_shots_for_any_system(cells, cache, tmp_path):
    run_grid(grid(cells, systems=tuple(SYSTEMS), shots=(0,), seeds=1), tmp_path, cache=cache)
    assert {cell.system for cell in aurocs(tmp_path)} == set(SYSTEMS)
    assert all(0 <= score <= 1 for score in aurocs(tmp_path).values())


@pytest.mark.slow
def test_processes_append_every_cell(cells, cache, tmp_path):
    run_grid(grid(cells, systems=("devnet",)), tmp_path, cache=cache, jobs=2)
    assert {cell.seed for cell in aurocs(tmp_path)} == {0, 1}
    assert all(0 <= score <= 1 for score in aurocs(tmp_path).values())


@pytest.mark.slow
def test_a_cluster_gives_what_one_process_gives(cells, cache, tmp_path):
    asked = grid(cells, systems=("devnet",))
    run_grid(asked, tmp_path / "here", cache=cache)
    said = []
    run_grid(asked, tmp_path / "there", cache=cache, jobs=2, ray="local", report=said.append)
    assert aurocs(tmp_path / "there") == pytest.approx(aurocs(tmp_path / "here"), abs=0.02)
    assert any(line.startswith("2/2: devnet, general, shots 2") for line in said)


@pytest.mark.slow
def test_no_cluster_at_the_address(cells, cache, tmp_path):
    with pytest.raises(ConfigError, match=r"no Ray cluster at '127.0.0.1:1'"):
        run_grid(grid(cells, systems=("devnet",)), tmp_path, cache=cache, ray="127.0.0.1:1")
    assert aurocs(tmp_path) == {}


@pytest.mark.slow
def test_a_failing_cell_is_named_and_the_finished_stay(cells, cache, tmp_path, monkeypatch):
    learn = benchmark.learn

    def fails_later(base, config, *rest, **named):
        if config.seed == 1:
            raise RuntimeError("out of memory")
        return learn(base, config, *rest, **named)

    monkeypatch.setattr(benchmark, "learn", fails_later)
    with pytest.raises(RunError, match="cell devnet, general, shots 2, seed 1 failed: RuntimeError: out of memory"):
        run_grid(grid(cells, systems=("devnet",)), tmp_path, cache=cache)
    assert [cell.seed for cell in aurocs(tmp_path)] == [0]


def test_cells_that_cannot_be_dealt_fail_first(cells, cache, tmp_path):
    with pytest.raises(
        DataError, match=r"cell ahl-density, general, shots 9, seed 0: .*9 shots requested, but there are 8"
    ):
        run_grid(grid(cells, shots=(9,)), tmp_path / "out", cache=cache)
    with pytest.raises(DataError, match="no class has 9 anomalies"):
        run_grid(grid(cells, shots=(9,), settings=("hard",)), tmp_path / "out", cache=cache)
    with pytest.raises(DataError, match="the test needs normals and anomalies"):
        run_grid(grid(cells, shots=(8,)), tmp_path / "out", cache=cache)
    assert not (tmp_path / "out").exists()


def test_all_train_normals_train(cells):
    asked = grid(cells)
    dataset = load_dataset(asked.data)
    for cell in asked.cells(dataset):
        dealt = benchmark.deal(cell, dataset)
        assert (len(dealt.train_normal), len(dealt.calibration_normal)) == (45, 0)
        assert dealt == split(dataset, shots=2, seed=cell.seed, calibration=0)
        assert asked.config(cell) == TrainConfig(str(cells), shots=2, seed=cell.seed, calibration=0, epochs=1)


def test_the_grid_has_a_row_for_each_class(cells):
    dataset = load_dataset(str(cells))
    rows = [(c.setting, c.seen_class, c.seed) for c in grid(cells, settings=("general", "hard")).cells(dataset)]
    assert rows == [(*row, s) for row in (("general", None), ("hard", "mono"), ("hard", "poly")) for s in (0, 1)]


def test_systems_by_name():
    assert choose_systems("all") == tuple(SYSTEMS)
    assert choose_systems("default") == ("ahl-density",)
    assert choose_systems("dra, ahl-dra,dra") == ("dra", "ahl-dra")
    assert choose_systems("rivals") == ("patchcore", "padim")
    assert choose_systems("all,patchcore,dra,padim") == (*SYSTEMS, "patchcore", "padim")
    with pytest.raises(
        ConfigError, match=r"unknown systems 'nope': choose among all, default, rivals, .*ahl-density, patch"
    ):
        choose_systems("dra,nope")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": 0}, "grid is empty"),
        ({"shots": ()}, "grid is empty"),
        ({"settings": ("easy",)}, "choose general or hard"),
        ({"epoch": "first"}, "epoch is 'first', choose last or best"),
        ({"schedule": "long"}, "choose auto, paper"),
        ({"systems": ("nope",)}, "unknown system"),
        ({"shots": (-1,)}, "shots is -1"),
    ],
)
def test_wrong_grids(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Grid("elpv", **wrong)


def result(**other):
    cell = {"system": "dra", "setting": "general", "seen_class": None, "shots": 1, "seed": 0}
    made = {"schedule": "short", "epochs": 12, "epoch": "last", "pixel": False, "backbone": "b", "backbone_digest": "d"}
    return {**cell, **made, "auroc": 0.5, "seconds": 1.0, "data": "x", "dataset": "x", "classes": 1, **other}


def test_one_folder_holds_comparable_results_of_one_bench(tmp_path):
    with open_results(tmp_path) as results:
        results.append(result())
        with pytest.raises(RunError, match="another benchmark writes"), open_results(tmp_path):
            pass
    with open_results(tmp_path) as again:
        assert isinstance(again, Results)
        again.require_same(result(seed=1))
        with pytest.raises(RunError, match="epochs: 12 in the folder, 30 requested"):
            again.require_same(result(epochs=30))


def test_older_results_are_of_the_last_epoch_and_of_images_alone(tmp_path):
    older = {key: value for key, value in result().items() if key not in ("epoch", "pixel")}
    (tmp_path / "results.jsonl").write_text(json.dumps(older) + "\n")
    assert read_results(tmp_path) == [result()]
    with open_results(tmp_path) as results:
        results.require_same(result())


def test_a_line_of_the_best_epoch_needs_its_figure(tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps(result(epoch="best")) + "\n")
    with pytest.raises(RunError, match="line 1 is not a result"):
        read_results(tmp_path)


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps(result()) + "\n{oops\n")
    with pytest.raises(RunError, match="line 2 is not a result"):
        read_results(tmp_path)
