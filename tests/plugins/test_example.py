"""The example package, installed as users install it: each of its plug-ins is found, and does real work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
BUNDLE = HERE.parent / "ahl_runtime/data/made_before/cells.ahl"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example package was installed into."""
    source = tmp_path_factory.mktemp("source") / "ahl_example"
    shutil.copytree(HERE / "ahl_example", source)
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def environment(installed: Path) -> dict[str, str]:
    """In which the package is installed."""
    paths = [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="module")
def run(environment: dict[str, str]) -> Run:
    """Runs a command of ours in that environment."""

    def call(*command: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        words = [str(script(str(command[0]))), *map(str, command[1:])]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == code, done
        return done

    return call


def script(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def line_of(folder: Path, text: str) -> Path:
    bundle = shutil.copy(BUNDLE, folder)
    path = folder / "line.toml"
    path.write_text(f'[model]\nbundle = "{bundle}"\n[http]\nport = 0\n[store]\npath = "{folder}/line.sqlite"\n{text}')
    return path


def test_a_line_of_its_source_and_its_sink(environment: dict[str, str], tmp_path: Path) -> None:
    told = tmp_path / "counts.json"
    config = line_of(
        tmp_path,
        '[[source]]\nname = "random"\nkind = "noise"\ncount = 7\n'
        f'[[sink]]\nname = "counts"\nkind = "count"\npath = "{told}"\n',
    )
    command = [script("ahl-runtime"), "serve", "--config", config]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            end = time.monotonic() + 60
            while sum(read(told).values()) < 7 and time.monotonic() < end and process.poll() is None:
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGTERM)
            _, logged = process.communicate(timeout=60)
    assert process.returncode == 0, logged
    assert sum(read(told).values()) == 7 and set(read(told)) <= {"pass", "unsure", "reject"}, logged


def read(path: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    return found


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('[[source]]\nname = "a"\nkind = "noise"\nsied = 8', "source[1].sied: no such key; did you mean side?"),
        ('[[source]]\nname = "a"\nkind = "nois"', "'push', 'noise'"),
        ('[[sink]]\nname = "a"\nkind = "count"', "sink[1].path: missing"),
        ('[[sink]]\nname = "a"\nkind = "cuont"', "'opcua', 'count'"),
    ],
)
def test_faults_of_its_settings_are_named(run: Run, tmp_path: Path, section: str, said: str) -> None:
    done = run("ahl-runtime", "serve", "--config", line_of(tmp_path, section), code=2)
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_help_and_errors_name_its_kinds(run: Run) -> None:
    assert "noise:PLACE" in " ".join(run("ahl-runtime", "serve", "--help").stdout.split())
    done = run("ahl-runtime", "serve", "--bundle", BUNDLE, "--source", "nois:7", code=2)
    assert "noise:PLACE" in done.stderr


def test_its_engine_is_checked_and_scores(run: Run, cells_folder: Path) -> None:
    checked = json.loads(run("ahl-runtime", "check", BUNDLE, "--json").stdout)
    found = {engine["engine"]: engine for engine in checked["engines"]}
    assert found["reference"]["passed"] is True and checked["chosen"] == "onnxruntime"
    score = ("ahl-runtime", "score", "--bundle", BUNDLE, cells_folder)
    ours, theirs = (
        [json.loads(line)["score"] for line in run(*score, *engine).stdout.splitlines()]
        for engine in ((), ("--engine", "reference"))
    )
    assert len(ours) == 3 and theirs == pytest.approx(ours, abs=1e-5)
    done = run("ahl-runtime", "score", "--bundle", BUNDLE, "--engine", "referense", cells_folder, code=2)
    assert "reference" in done.stderr


@pytest.fixture(scope="module")
def cells_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real images."""
    elpv = pytest.importorskip("elpv_dataset")
    folder = tmp_path_factory.mktemp("frames")
    for file in sorted((Path(elpv.__path__[0]) / "data/images").glob("cell*.png"))[:3]:
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def flat(elpv_cells: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images in the layout of the package's dataset: 40 good ones, 8 of two kinds of defect."""
    root = elpv_cells(tmp_path_factory.mktemp("layout") / "set", 36, 4)
    folder = tmp_path_factory.mktemp("flat")
    for file in root.glob("*/*/*.png"):
        shutil.copy(file, folder / f"{file.parent.name}_{file.stem}.png")
    return folder


def test_its_head_learns_from_its_dataset_and_is_exported(run: Run, flat: Path, tmp_path: Path) -> None:
    out, bundle = tmp_path / "run", tmp_path / "flat.ahl"
    small = ("--shots", 2, "--epochs", 1, "--calibration", 20, "--clusters", 2, "--cache", tmp_path / "cache")
    run("ahl", "train", "--data", f"flat:{flat}", "--system", "distance", "--out", out, *small)
    assert "auroc" in run("ahl", "evaluate", out).stdout
    run("ahl", "export", out, "--out", bundle, "--alpha", 0.1)
    scored = run("ahl-runtime", "score", "--bundle", bundle, next(flat.glob("good_*"))).stdout
    assert json.loads(scored)["decision"] in ("pass", "unsure", "reject")


def test_help_and_errors_name_its_head_and_its_dataset(run: Run, tmp_path: Path) -> None:
    shown = " ".join(run("ahl", "train", "--help").stdout.split())
    assert "distance" in shown and "flat" in shown
    done = run("ahl", "train", "--data", "elpv", "--system", "distanse", "--out", tmp_path / "run", code=2)
    assert "unknown system 'distanse'" in done.stderr and "distance" in done.stderr
    done = run("ahl", "train", "--data", f"flot:{tmp_path}", "--out", tmp_path / "run", code=2)
    assert "flat" in done.stderr


def test_a_new_settings_file_names_the_kinds(run: Run, tmp_path: Path) -> None:
    run("ahl-runtime", "init", tmp_path / "line.toml")
    text = (tmp_path / "line.toml").read_text()
    assert "[[source]] that plug-ins add here: noise" in text and "[[sink]] that plug-ins add here: count" in text
