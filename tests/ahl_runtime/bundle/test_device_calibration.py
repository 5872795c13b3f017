"""The device's own calibrations: bound to their bundle, never overwritten, each byte checked, each change audited."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import calibration
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.bundle.device_calibration import AUDIT, Change, SideFile, SideFiles
from ahl_runtime.core.errors import SideFileError
from calibration import Calibration

ORT = "onnxruntime"
CHANGE = Change("ann", "new lamp", {"old_threshold": None})


def fitted(high: float = 1.0, n: int = 60) -> Calibration:
    return calibration.fit(np.linspace(0, high, n), 0.1, 0.9)


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Bundle:
    return open_bundle(make_bundle())


@pytest.fixture
def files(bundle: Bundle) -> SideFiles:
    return SideFiles(bundle)


def test_without_any_the_bundle_decides_and_nothing_is_written(files: SideFiles) -> None:
    assert files.chosen(ORT, "left") is None and list(files.listed()) == []
    assert not files.folder.exists()


def test_the_newest_is_active_and_the_old_ones_stay(files: SideFiles, bundle: Bundle) -> None:
    before = bundle.path.read_bytes()
    first = files.add(ORT, "left", fitted(1.0), CHANGE)
    kept = first.path.read_bytes()
    second = files.add(ORT, "left", fitted(2.0), CHANGE)
    assert (first.name, second.name) == ("left.onnxruntime.0001", "left.onnxruntime.0002")
    found = files.chosen(ORT, "left")
    assert found is not None and found.name == second.name
    assert found.calibration.threshold == fitted(2.0).threshold and found.calibration.n == 60
    assert first.path.read_bytes() == kept and bundle.path.read_bytes() == before


def test_a_source_has_its_own_or_the_defaults(files: SideFiles) -> None:
    files.add(ORT, "left", fitted(1.0), CHANGE)
    assert files.chosen(ORT, "right") is None
    files.add(ORT, "default", fitted(2.0), CHANGE)
    names = [found.name for source in ("left", "right", "default") if (found := files.chosen(ORT, source))]
    assert names == ["left.onnxruntime.0001", "default.onnxruntime.0001", "default.onnxruntime.0001"]


def test_another_artefacts_calibration_is_never_passed_over_in_silence(files: SideFiles) -> None:
    files.add("openvino", "left", fitted(), CHANGE)
    with pytest.raises(SideFileError, match="calibrated for openvino, not for onnxruntime: choose --engine openvino"):
        files.chosen(ORT, "left")
    assert files.chosen(ORT, "right") is None


def test_undo_goes_back_one_at_a_time_and_numbers_are_not_used_again(files: SideFiles) -> None:
    for high in (1.0, 2.0):
        files.add(ORT, "left", fitted(high), CHANGE)
    assert files.undo(ORT, "left", CHANGE) == "left.onnxruntime.0002"
    found = files.chosen(ORT, "left")
    assert found is not None and found.name == "left.onnxruntime.0001"
    assert files.add(ORT, "left", fitted(3.0), CHANGE).name == "left.onnxruntime.0003"
    for _ in range(2):
        files.undo(ORT, "left", CHANGE)
    assert files.chosen(ORT, "left") is None
    with pytest.raises(SideFileError, match="no calibration for onnxruntime to roll back"):
        files.undo(ORT, "left", CHANGE)
    assert len(list(files.folder.glob("*.undone"))) == 3


def test_each_change_leaves_an_audit_line(files: SideFiles, bundle: Bundle) -> None:
    files.add(ORT, "left", fitted(), CHANGE)
    files.undo(ORT, "left", Change("bob", "too strict", {}))
    first, second = (json.loads(line) for line in (files.folder / AUDIT).read_text().splitlines())
    assert (first["who"], first["why"], first["what"], first["old_threshold"]) == ("ann", "new lamp", "calibrate", None)
    assert (second["who"], second["why"], second["what"]) == ("bob", "too strict", "undo")
    assert first["calibration"] == second["calibration"] == "left.onnxruntime.0001"
    assert first["bundle"] == bundle.digest and first["when"] <= second["when"]


def test_an_audit_line_cut_by_a_power_cut_does_not_swallow_the_next(files: SideFiles) -> None:
    files.folder.mkdir()
    (files.folder / AUDIT).write_text('{"when": "20')
    files.add(ORT, "left", fitted(), CHANGE)
    cut, whole = (files.folder / AUDIT).read_text().splitlines()
    assert cut == '{"when": "20' and json.loads(whole)["who"] == "ann"


def test_what_cannot_be_audited_does_not_happen(files: SideFiles) -> None:
    files.add(ORT, "left", fitted(), CHANGE)
    (files.folder / AUDIT).unlink()
    (files.folder / AUDIT).mkdir()
    before = sorted(p.name for p in files.folder.iterdir())
    with pytest.raises(SideFileError, match=r"audit\.jsonl: cannot be written .* nothing has changed"):
        files.add(ORT, "left", fitted(2.0), CHANGE)
    with pytest.raises(SideFileError, match=r"audit\.jsonl: cannot be written"):
        files.undo(ORT, "left", CHANGE)
    assert sorted(p.name for p in files.folder.iterdir()) == before


def test_a_place_that_cannot_be_written(files: SideFiles) -> None:
    files.folder.write_text("a file")
    with pytest.raises(SideFileError, match="cannot be"):
        files.add(ORT, "left", fitted(), CHANGE)
    assert files.folder.read_text() == "a file"


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
import calibration
from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.bundle.device_calibration import Change, SideFiles
files = SideFiles(open_bundle(Path(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
files.add("onnxruntime", "left", calibration.fit(np.linspace(0, 1, 60), 0.1, 0.9), Change("ann", "", {}))
"""


@pytest.mark.parametrize("limit", [100, 4000])
def test_a_file_that_cannot_grow_changes_nothing(files: SideFiles, limit: int) -> None:
    """100 bytes: the side file does not fit; 4,000: it does, and the audit does not."""
    files.add(ORT, "left", fitted(), CHANGE)
    (files.folder / AUDIT).write_bytes((files.folder / AUDIT).read_bytes().ljust(3999, b" ") + b"\n")
    before = {p.name: p.read_bytes() for p in files.folder.iterdir()}
    command = [sys.executable, "-c", FULL, str(files.bundle), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "SideFileError" in done.stderr and "File too large" in done.stderr, done.stderr
    assert {p.name: p.read_bytes() for p in files.folder.iterdir()} == before


@pytest.mark.parametrize("source", ["", "a.b", "../x", "a/b", "ü", "x" * 65, "a b", "\n"])
def test_source_names_are_plain(files: SideFiles, source: str) -> None:
    for call in (lambda: files.chosen(ORT, source), lambda: files.add(ORT, source, fitted(), CHANGE)):
        with pytest.raises(SideFileError, match="expected 1 to 64 letters"):
            call()
    assert not files.folder.exists()


def test_an_artefact_of_an_odd_name_leaves_no_file_elsewhere(files: SideFiles, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SideFileError, match="cannot be used in a file name"):
        files.add("../../x", "left", fitted(), CHANGE)
    assert sorted(tmp_path.rglob("*")) == before


# --- side files that cannot be used


def test_of_another_bundle(files: SideFiles, make_bundle: Callable[..., Path]) -> None:
    side = files.add(ORT, "left", fitted(), CHANGE)
    kept = side.path.read_bytes()
    other = SideFiles(open_bundle(make_bundle(fields={"name": "other"})))  # over the first, as an update is
    assert other.folder == files.folder
    with pytest.raises(SideFileError, match=r"belongs to bundle .*, not to cells\.ahl, .* --undo, or .* --as-exported"):
        other.chosen(ORT, "left")
    assert [type(found) for _, _, found in other.listed()] == [SideFileError]
    assert side.path.read_bytes() == kept
    assert other.undo(ORT, "left", CHANGE) == side.name and other.chosen(ORT, "left") is None


def test_renamed(files: SideFiles) -> None:
    side = files.add(ORT, "left", fitted(), CHANGE)
    side.path.rename(files.folder / "right.onnxruntime.0001.zip")
    with pytest.raises(SideFileError, match="made for source left and onnxruntime, and renamed"):
        files.chosen(ORT, "right")


def test_a_bundle_or_junk_in_its_place(files: SideFiles, bundle: Bundle) -> None:
    side = files.add(ORT, "left", fitted(), CHANGE)
    for body in (bundle.path.read_bytes(), b"", b"junk"):
        side.path.write_bytes(body)
        with pytest.raises(SideFileError, match="refused: "):
            files.chosen(ORT, "left")


@pytest.fixture(scope="module")
def written(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SideFiles, SideFile, bytes]:
    copy = tmp_path_factory.mktemp("side") / "cells.ahl"
    copy.write_bytes(bundle_path.read_bytes())
    files = SideFiles(open_bundle(copy))
    side = files.add(ORT, "left", fitted(), CHANGE)
    return files, side, side.path.read_bytes()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_cut_or_changed(written: tuple[SideFiles, SideFile, bytes], data: st.DataObject) -> None:
    """Any byte changed and any cut is refused; undo still works, so there is a way out."""
    files, side, whole = written
    if data.draw(st.booleans()):
        changed = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    side.path.write_bytes(changed)
    try:
        with pytest.raises(SideFileError) as caught:
            files.chosen(ORT, "left")
        assert str(caught.value).startswith(f"{side.path}: refused: ") and "\n" not in str(caught.value)
        assert side.path.read_bytes() == changed
        files.undo(ORT, "left", CHANGE)
        assert files.chosen(ORT, "left") is None
    finally:
        side.path.with_suffix(".undone").unlink(missing_ok=True)
        side.path.write_bytes(whole)
    found = files.chosen(ORT, "left")
    assert found is not None and found.calibration.threshold == fitted().threshold
