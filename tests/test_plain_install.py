"""The plain install is the device's: light, able to score, and plain about what it lacks."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import elpv_dataset
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import calibration
from ahl_runtime.bundle.bundle import write_bundle

pytestmark = pytest.mark.slow

MEGABYTE = 1_000_000


def _run(command: Sequence[object], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real graph of a few nodes: brightness."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    outputs = [
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", "H", "W"]),
        helper.make_tensor_value_info("head_scores", TensorProto.FLOAT, ["N", 1]),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "last"], ["anomaly_map"], keepdims=0),
        helper.make_node("ReduceMean", ["anomaly_map", "inner"], ["score"], keepdims=0),
        helper.make_node("Unsqueeze", ["score", "one"], ["head_scores"]),
    ]
    constants = [
        helper.make_tensor(n, TensorProto.INT64, [len(v)], v)
        for n, v in (("last", [3]), ("inner", [1, 2]), ("one", [1]))
    ]
    graph = helper.make_graph(nodes, "brightness", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    folder = tmp_path_factory.mktemp("bundle")
    fitted = calibration.fit(np.linspace(0, 200, 300))
    fitted.save(folder / "calibration.npz")
    fields = {
        "name": "brightness",
        "graph": {
            "opset": 18,
            "inputs": ["image"],
            "outputs": ["score", "anomaly_map", "head_scores"],
            "heads": ["brightness"],
        },
        "artefacts": [
            {
                "engine": "onnxruntime",
                "files": ["model.onnx"],
                "precision": "float32",
                "tolerance": 1e-4,
                "decision": {
                    "alpha": 0.01,
                    "confidence": 0.95,
                    "threshold": fitted.threshold,
                    "unsure_threshold": fitted.unsure_threshold,
                    "promise": fitted.promise.sentence,
                },
                "calibration": {"file": "calibration.npz", "n": 300},
                "map_range": [0.0, 255.0],
                "reference": [],
                "parity": None,
                "extras": {},
            }
        ],
        "provenance": {},
    }
    members = {"model.onnx": model.SerializeToString(), "calibration.npz": folder / "calibration.npz"}
    return write_bundle(folder / "brightness.ahl", fields, members).path


def test_nothing_heavy_comes_along(binaries: Path) -> None:
    listed = json.loads(_run([binaries / "python", "-m", "pip", "list", "--format", "json"]).stdout)
    names = {package["name"].lower() for package in listed}
    assert "ahl" in names
    assert not names & {"torch", "torchvision", "timm", "scikit-learn", "scipy", "onnx", "rich", "matplotlib"}
    assert _run([binaries / "python", "-c", "import ahl_runtime, calibration"]).returncode == 0


def test_site_packages_stay_under_200_megabytes(binaries: Path) -> None:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = Path(_run([binaries / "python", "-c", code]).stdout.strip())
    bare = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")  # the environment's own
    kept = [entry for entry in folder.iterdir() if not entry.name.startswith(bare)]
    files = [f.lstat() for entry in kept for f in (entry.rglob("*") if entry.is_dir() else [entry]) if f.is_file()]
    on_disk = 512 * sum(f.st_blocks for f in files)
    assert sum(f.st_size for f in files) < 180 * MEGABYTE
    assert on_disk < 180 * 1024 * 1024, f"{on_disk / 1024 / 1024:.0f} MiB on disk"


def test_it_scores(binaries: Path, bundle: Path) -> None:
    cell = Path(elpv_dataset.__path__[0]) / "data/images/cell0001.png"
    done = _run([binaries / "ahl-runtime", "score", "--bundle", bundle, cell])
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line.keys() >= {"score", "p_value", "decision", "ms"}
    assert line["decision"] in {"pass", "unsure", "reject"}


def test_trust_names_its_extra(binaries: Path, bundle: Path, tmp_path: Path) -> None:
    done = _run([binaries / "ahl-runtime", "check", bundle, "--trust", tmp_path / "line.key.pub"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: signatures need the extra [signing]: pip install 'ahl[signing]'\n"


def test_it_keeps_decisions_and_calibrates_itself(binaries: Path, bundle: Path, tmp_path: Path) -> None:
    cells = sorted((Path(elpv_dataset.__path__[0]) / "data/images").glob("cell*.png"))[:40]
    (tmp_path / "line").mkdir()
    for cell in cells:
        (tmp_path / "line" / cell.name).symlink_to(cell)
    runtime = binaries / "ahl-runtime"
    asked = [runtime, "calibrate", "--bundle", bundle, "--source", tmp_path / "line", "--alpha", "0.1", "--yes"]
    assert (calibrated := _run(asked)).returncode == 0, calibrated.stderr
    scored = _run([runtime, "score", "--bundle", bundle, "--store", tmp_path / "line.sqlite", cells[0]])
    line = json.loads(scored.stdout)
    assert line["calibration"] == "default.onnxruntime.0001"
    marked = _run([runtime, "feedback", "mark", line["id"], "good", "--store", tmp_path / "line.sqlite"])
    assert json.loads(marked.stdout) == {"id": line["id"], "label": "good"}
    assert _run([runtime, "calibrate", "--bundle", bundle, "--undo"]).returncode == 0


def test_the_server_and_its_page_come_along(binaries: Path) -> None:
    code = (
        "from importlib import resources; import ahl_runtime.http.app; "
        "print(*sorted(f.name for f in (resources.files('ahl_runtime.http') / 'page').iterdir()))"
    )
    done = _run([binaries / "python", "-c", code], cwd=binaries)
    assert done.stdout.split() == ["icon.svg", "index.html", "page.css", "page.js"], done.stderr


@pytest.mark.parametrize(("command", "extra"), [("train", "train"), ("export", "export"), ("demo", "demo")])
def test_the_workstation_commands_name_their_extra(binaries: Path, command: str, extra: str) -> None:
    done = _run([binaries / "ahl", command, "--out", "x"])
    assert done.returncode == 2
    assert done.stderr == f"error: ahl {command} needs the extra [{extra}]: pip install 'ahl[{extra}]'\n"
    assert done.stdout == ""
