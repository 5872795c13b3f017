"""`ahl inspect`: everything that a bundle says of its artefacts, as a table and as JSON."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ahl_export.inspection import as_json, as_text
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.core.decode import decode

pytestmark = pytest.mark.slow


def ahl(*arguments: object, program: str = "ahl") -> subprocess.CompletedProcess[str]:
    """Run a command line of this environment."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_each_artefact_was_proven_and_calibrated_on_its_own_scores(full_bundle: Bundle) -> None:
    artefacts = {a.engine: a for a in full_bundle.manifest.artefacts}
    assert list(artefacts) == ["onnxruntime", "openvino", "onnxruntime-int8"]
    for artefact in artefacts.values():
        parity, fitted = artefact.parity, full_bundle.calibration(artefact)
        assert parity is not None and parity.frames == 10
        assert parity.compared == (10 if artefact.engine == "onnxruntime" else 40)
        assert 0 < parity.ms_p50 <= parity.ms_p99
        assert parity.size == sum(full_bundle.manifest.members[name].size for name in artefact.files)
        assert fitted.threshold == artefact.decision.threshold and fitted.n == 20
        assert len(artefact.reference) == 3
    assert artefacts["onnxruntime"].parity.score_max < 1e-4  # type: ignore[union-attr]
    assert len({full_bundle.calibration(a).scores.tobytes() for a in artefacts.values()}) == 3


def test_the_table_has_a_column_for_each_and_says_what_they_promise(full_bundle: Bundle) -> None:
    lines = as_text(full_bundle).splitlines()
    (header,) = (i for i, line in enumerate(lines) if line.split() == ["onnxruntime", "openvino", "onnxruntime-int8"])
    rows = {line[:25].strip(): line[25:].split() for line in lines[header + 2 : header + 15]}
    for label, values in zip(("reject above", "MB"), ("threshold", "size"), strict=True):
        for got, artefact in zip(rows[label], full_bundle.manifest.artefacts, strict=True):
            wanted = artefact.decision.threshold if values == "threshold" else artefact.parity.size / 1e6  # type: ignore[union-attr]
            assert float(got) == pytest.approx(wanted, rel=1e-3, abs=0.05)
    assert any("kept in float32 by the search: " in line for line in lines)
    assert all(any(a.decision.promise in line for line in lines) for a in full_bundle.manifest.artefacts)


def test_json_is_the_manifest(full_bundle: Bundle) -> None:
    done = ahl("inspect", full_bundle.path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(as_json(full_bundle)))
    assert json.loads(done.stdout)["digest"] == full_bundle.digest


def test_plots_of_each_artefact_are_pictures(full_bundle: Bundle, tmp_path: Path) -> None:
    """20 calibration normals are too few for the drift alarm."""
    done = ahl("inspect", full_bundle.path, "--plots", tmp_path / "new" / "plots")
    assert done.returncode == 0, done.stderr
    files = {f"{a.engine}-{name}.png" for a in full_bundle.manifest.artefacts for name in ("levels", "reliability")}
    assert {f.name for f in (tmp_path / "new" / "plots").iterdir()} == files
    for file in files:
        pixels = decode(tmp_path / "new" / "plots" / file)
        assert min(pixels.shape[:2]) > 400 and np.ptp(pixels) > 200
        assert file in done.stderr


def test_plots_into_a_file_are_refused(full_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = ahl("inspect", full_bundle.path, "--plots", tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "choose another --plots" in done.stderr


def test_the_device_runs_and_checks_them_all(full_bundle: Bundle) -> None:
    done = ahl("check", full_bundle.path, "--json", program="ahl-runtime")
    assert done.returncode == 0, done.stdout + done.stderr
    engines = {e["engine"]: e for e in json.loads(done.stdout)["engines"]}
    assert all(engines[name]["passed"] for name in ("onnxruntime", "openvino", "onnxruntime-int8"))


def test_what_is_no_bundle_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.ahl").write_bytes(b"junk")
    done = ahl("inspect", tmp_path / "x.ahl")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "not a bundle" in done.stderr
