"""A bundle reads back as written; anything else is refused with the reason, and nothing is half-written."""

import hashlib
import json
import math
import os
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahl_runtime.bundle import archive
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.core.errors import BundleError

Make = Callable[..., Path]


def content(bundle: Bundle) -> tuple[str, dict[str, bytes]]:
    return bundle.digest, {name: bundle.read(name) for name in sorted(bundle.manifest.members)}


def rezip(path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Path:
    """The same bundle with other members, packed as the writer packs."""
    with zipfile.ZipFile(path) as zipped:
        members = {i.filename: zipped.read(i) for i in zipped.infolist()}
    path.write_bytes(b"".join(archive.pack(change(members))))
    return path


def with_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    def edit(members: dict[str, bytes]) -> dict[str, bytes]:
        manifest = json.loads(members["manifest.json"])
        changed = change(manifest)
        return {
            **members,
            "manifest.json": json.dumps(manifest if changed is None else changed).encode(),
        }

    return rezip(path, edit)


def test_it_reads_back(bundle_path: Path, parts: tuple[dict[str, Any], dict[str, bytes]]) -> None:
    bundle = open_bundle(bundle_path)
    assert {name: bundle.read(name) for name in parts[1]} == parts[1]
    assert bundle.digest == hashlib.sha256(zipfile.ZipFile(bundle_path).read("manifest.json")).hexdigest()
    assert bundle.manifest.first.decision.threshold == parts[0]["artefacts"][0]["decision"]["threshold"]
    assert bundle.calibration(bundle.manifest.first).n == 40
    for (name, pixels, score), expected in zip(
        bundle.reference(bundle.manifest.first), parts[0]["artefacts"][0]["reference"], strict=True
    ):
        assert (name, score) == (expected["file"], expected["score"])
        assert pixels.dtype == np.uint8 and pixels.shape == (64, 64, 3)


def test_any_zip_program_can_list_it(bundle_path: Path) -> None:
    with zipfile.ZipFile(bundle_path) as zipped:
        assert zipped.testzip() is None
        assert zipped.namelist()[0] == "manifest.json"
        assert {i.compress_type for i in zipped.infolist()} == {zipfile.ZIP_STORED}


def test_the_same_parts_give_the_same_bytes(make_bundle: Make) -> None:
    created = {"created": "2024-05-01T12:00:00Z"}
    assert make_bundle("a.ahl", created).read_bytes() == make_bundle("b.ahl", created).read_bytes()


def test_members_may_come_from_files(make_bundle: Make, tmp_path: Path, model: bytes) -> None:
    source = tmp_path / "graph.onnx"
    source.write_bytes(model)
    assert open_bundle(make_bundle(members={"model.onnx": source})).read("model.onnx") == model
    with pytest.raises(BundleError, match=r"gone\.onnx"):
        make_bundle(members={"model.onnx": tmp_path / "gone.onnx"})


def test_an_infinite_threshold_is_null_in_the_file(make_bundle: Make, parts: Any) -> None:
    path = make_bundle(first={"decision": {**parts[0]["artefacts"][0]["decision"], "threshold": math.inf}})
    assert open_bundle(path).manifest.first.decision.threshold == math.inf
    stored = json.loads(zipfile.ZipFile(path).read("manifest.json"), parse_constant=pytest.fail)
    assert stored["artefacts"][0]["decision"]["threshold"] is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"colour": 1}, "colour: Extra inputs"),
        ({"name": 3}, "name: Input should be a valid string"),
        ({"artefacts": []}, "artefacts"),
        ({"created": "yesterday"}, "created"),
        ({"provenance": {"run": Path("x"), "odd": {1, 2}, "worse": object()}}, "provenance"),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_written(
    make_bundle: Make, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        make_bundle(fields=fields)
    assert "cells.ahl" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ({"map_range": [1.0, 0.0]}, r"artefacts\.0: .*map_range"),
        ({"map_range": [0.0, math.nan]}, "map_range"),
        ({"calibration": {"file": "other.npz", "n": 40}}, r"name other\.npz, which members does not list"),
        ({"files": ["model.onnx", "engines/other.bin"]}, r"name engines/other\.bin, which members does not list"),
        ({"tolerance": 0.0}, r"artefacts\.0\.tolerance"),
        ({"engine": "openvino"}, "the first artefact is for openvino, expected onnxruntime"),
        ({"parity": {"frames": 0}}, r"artefacts\.0\.parity\.frames"),
    ],
)
def test_wrong_fields_of_an_artefact_are_named(
    make_bundle: Make, tmp_path: Path, first: dict[str, Any], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        make_bundle(first=first)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_has_one_artefact(make_bundle: Make, parts: Any) -> None:
    with pytest.raises(BundleError, match="name an engine twice: onnxruntime, onnxruntime"):
        make_bundle(fields={"artefacts": parts[0]["artefacts"] * 2})


def test_every_wrong_field_is_reported_at_once(make_bundle: Make) -> None:
    with pytest.raises(BundleError, match=r"name: .*; artefacts\.0\.map_range\.0: "):
        make_bundle(fields={"name": ""}, first={"map_range": ["low", 1.0]})


def test_thresholds_out_of_order_are_refused(make_bundle: Make, parts: Any) -> None:
    with pytest.raises(BundleError, match="unsure_threshold 2 is not at most threshold 1"):
        make_bundle(
            first={"decision": {**parts[0]["artefacts"][0]["decision"], "threshold": 1.0, "unsure_threshold": 2.0}}
        )


@pytest.mark.parametrize(
    "name", ["../up", "/root", "a/../b", "a\\b", "C:x", "a//b", "", ".hidden", "a/", "ü", "a\0b", "manifest.json"]
)
def test_names_that_leave_the_bundle_are_not_written(make_bundle: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=r"not a plain relative path|lists manifest\.json"):
        make_bundle(members={name: b"x"})
    assert list(tmp_path.iterdir()) == []


# --- reading what someone else made of it


def refused(path: Path, said: str) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        open_bundle(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "gone.ahl", "No such file")
    refused(tmp_path, "directory")


def test_a_newer_format_says_what_to_do(make_bundle: Make) -> None:
    path = with_manifest(make_bundle(), lambda m: m.update(format=3, brand_new="key"))
    refused(path, "bundle format 3, this runtime reads up to 1: update it or export again")


@pytest.mark.parametrize("version", [0, -1, True, "1", None, 1.0])
def test_an_odd_format_is_refused(make_bundle: Make, version: object) -> None:
    refused(with_manifest(make_bundle(), lambda m: m.update(format=version)), "format")


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff\xfe", b"[" * 50_000, b'{"format": 1}', b"3"])
def test_a_manifest_that_is_none_is_refused(make_bundle: Make, text: bytes) -> None:
    refused(rezip(make_bundle(), lambda m: {**m, "manifest.json": text}), r"manifest\.json")


def test_an_unknown_key_is_refused(make_bundle: Make) -> None:
    refused(with_manifest(make_bundle(), lambda m: m["graph"].update(extra=1)), r"graph\.extra")


def test_a_changed_member_is_named(make_bundle: Make) -> None:
    refused(rezip(make_bundle(), lambda m: {**m, "model.onnx": b"other"}), r"'model\.onnx' was altered")


def test_swapped_missing_and_extra_members_are_named(make_bundle: Make) -> None:
    one, two = "reference/0.png", "reference/1.png"
    refused(rezip(make_bundle(), lambda m: {**m, one: m[two], two: m[one]}), r"'reference/[01]\.png' was altered")
    refused(rezip(make_bundle(), lambda m: {k: v for k, v in m.items() if k != two}), "is missing")
    refused(rezip(make_bundle(), lambda m: {**m, "run.py": b"x"}), r"'run\.py' is not in the manifest")
    refused(rezip(make_bundle(), lambda m: {k: v for k, v in m.items() if k != "manifest.json"}), "not a bundle")


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/etc/x", "..\\x", "a/./b"])
def test_paths_that_leave_the_bundle_are_refused(make_bundle: Make, name: str) -> None:
    refused(rezip(make_bundle(), lambda m: {**m, name: b"x"}), "not a plain relative path")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
def test_packed_again_is_refused(make_bundle: Make, compression: int) -> None:
    path = make_bundle()
    with zipfile.ZipFile(path) as zipped:
        members = {i.filename: zipped.read(i) for i in zipped.infolist()}
    with zipfile.ZipFile(path, "w", compression) as zipped:
        for name, body in members.items():
            zipped.writestr(name, body)
    refused(path, "packed again")


def test_a_zip_bomb_is_refused_by_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ahl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("manifest.json", b" " * 50_000_000)
    refused(path, "compressed")


def test_a_member_twice_is_refused(make_bundle: Make) -> None:
    path = make_bundle()
    with zipfile.ZipFile(path, "a") as zipped, pytest.warns(UserWarning, match="Duplicate"):
        zipped.writestr("manifest.json", b"{}")
    refused(path, "twice")


@pytest.mark.parametrize("extra", [b"\0", b"PK\5\6" + bytes(18), b"x" * 70_000])
def test_bytes_before_and_after_are_refused(make_bundle: Make, extra: bytes) -> None:
    path = make_bundle()
    whole = path.read_bytes()
    path.write_bytes(whole + extra)
    refused(path, "refused")
    path.write_bytes(extra + whole)
    refused(path, "refused")


def test_zip64_and_comments_are_refused(make_bundle: Make, tmp_path: Path) -> None:
    path = tmp_path / "zip64.ahl"
    with zipfile.ZipFile(path, "w") as zipped, zipped.open("manifest.json", "w", force_zip64=True) as member:
        member.write(b"{}")
    refused(path, "packed again")
    path = make_bundle()
    with zipfile.ZipFile(path, "a") as zipped:
        zipped.comment = b"hello"
    refused(path, "refused")


def test_an_oversized_bundle_is_refused(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="larger than 1000 bytes"):
        open_bundle(bundle_path, max_bytes=1000)


def test_a_device_that_never_ends_is_refused() -> None:
    with pytest.raises(BundleError, match="larger than"):
        open_bundle(Path("/dev/zero"), max_bytes=100_000)


def test_opening_takes_memory_as_the_bundle_is_large(bundle_path: Path) -> None:
    tracemalloc.start()
    try:
        open_bundle(bundle_path)
        assert tracemalloc.get_traced_memory()[1] < 3 * bundle_path.stat().st_size + 1_000_000
    finally:
        tracemalloc.stop()


def test_too_many_members_are_refused(make_bundle: Make, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="members"):
        make_bundle(members={f"m{i}": b"" for i in range(300)})
    assert list(tmp_path.iterdir()) == []


def test_the_calibration_must_be_the_manifests(make_bundle: Make) -> None:
    wrong = open_bundle(make_bundle(first={"calibration": {"file": "calibration/onnxruntime.npz", "n": 41}}))
    with pytest.raises(BundleError, match="40 normals, the manifest says 41"):
        wrong.calibration(wrong.manifest.first)
    damaged = open_bundle(make_bundle(members={"calibration/onnxruntime.npz": b"junk"}))
    with pytest.raises(BundleError, match=r"cells\.ahl: calibration/onnxruntime\.npz"):
        damaged.calibration(damaged.manifest.first)


def test_a_member_that_is_not_there(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="no member 'engines/x'"):
        open_bundle(bundle_path).read("engines/x")


# --- a full disk

WRITE = """
import resource, sys
from pathlib import Path
from ahl_runtime.bundle.bundle import open_bundle, write_bundle
from ahl_runtime.core.errors import BundleError
old = open_bundle(Path(sys.argv[1]))
members = {name: old.read(name) for name in old.manifest.members} | {"engines/big": bytes(2_000_000)}
fields = old.manifest.model_dump(exclude={"format", "members"})
if sys.argv[3] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    write_bundle(Path(sys.argv[2]), fields, members)
except BundleError as error:
    sys.exit(str(error))
"""


def write_where_it_cannot_fit(bundle_path: Path, target: Path, how: str) -> str:
    before = target.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(bundle_path), str(target), how],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    assert target.read_bytes() == before
    return done.stderr


def test_a_file_that_cannot_grow_leaves_the_old_bundle(bundle_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "line.ahl"
    target.write_bytes(b"the old one")
    assert "cannot be written (File too large" in write_where_it_cannot_fit(bundle_path, target, "limit")


def test_a_full_disk_leaves_the_old_bundle(bundle_path: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk needs the right to mount a tmpfs")
    try:
        target = disk / "line.ahl"
        target.write_bytes(b"the old one")
        said = write_where_it_cannot_fit(bundle_path, target, "disk")
        assert "No space left on device" in said and "free space" in said
    finally:
        subprocess.run(["umount", str(disk)], check=True)
