"""Signed bundles: a trusted key opens what its owner signed, and nothing else; keys are never overwritten."""

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec

from ahl_runtime.bundle import archive
from ahl_runtime.bundle.bundle import open_bundle, write_bundle
from ahl_runtime.bundle.signature import generate, load_private, load_public
from ahl_runtime.core.errors import BundleError, SigningError

Parts = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    generate(folder / "line.key")
    return folder / "line.key"


def pub(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


@pytest.fixture
def signed(parts: Parts, key: Path, tmp_path: Path) -> Path:
    assert write_bundle(tmp_path / "signed.ahl", *parts, sign=load_private(key)).signed
    return tmp_path / "signed.ahl"


def members(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        return archive.unpack(file, 1 << 20)


def change(path: Path, edit: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Path:
    path.write_bytes(b"".join(archive.pack(edit(members(path)))))
    return path


def other_name(members: dict[str, bytes]) -> dict[str, bytes]:
    manifest = json.loads(members["manifest.json"])
    manifest["artefacts"][0]["decision"]["threshold"] = None
    return {**members, "manifest.json": json.dumps(manifest).encode()}


def test_the_private_key_is_its_owners_alone(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert load_private(key).public_key() == load_public(pub(key))
    assert sorted(p.name for p in key.parent.iterdir()) == ["line.key", "line.key.pub"]


@pytest.mark.parametrize("there", ["line.key", "line.key.pub"])
def test_keys_are_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("old")
    with pytest.raises(SigningError, match=rf"{there}: exists already"):
        generate(tmp_path / "line.key")
    assert [p.name for p in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "old"


def test_the_trusted_key_opens_it_and_so_does_no_key(signed: Path, key: Path) -> None:
    bundle = open_bundle(signed, trust=load_public(pub(key)))
    assert bundle.signed and open_bundle(signed).digest == bundle.digest
    assert "manifest.sig" not in bundle.manifest.members


def test_unsigned_and_other_keys_are_refused(signed: Path, key: Path, bundle_path: Path, tmp_path: Path) -> None:
    trusted = load_public(pub(key))
    with pytest.raises(BundleError, match=r"cells\.ahl: refused: it is not signed"):
        open_bundle(bundle_path, trust=trusted)
    generate(tmp_path / "other.key")
    with pytest.raises(BundleError, match=r"signed\.ahl: refused: its signature does not match the trusted key"):
        open_bundle(signed, trust=load_public(tmp_path / "other.key.pub"))


def test_a_changed_manifest_is_refused(signed: Path, key: Path) -> None:
    change(signed, other_name)
    assert open_bundle(signed).manifest.first.decision.threshold == float("inf")  # without a key nothing tells
    with pytest.raises(BundleError, match="its manifest was altered"):
        open_bundle(signed, trust=load_public(pub(key)))


def test_a_changed_member_is_refused_under_its_signature(signed: Path, key: Path) -> None:
    change(signed, lambda members: {**members, "model.onnx": members["model.onnx"] + b"\0"})
    with pytest.raises(BundleError, match=r"'model\.onnx' was altered"):
        open_bundle(signed, trust=load_public(pub(key)))


def test_a_signature_of_another_bundle_is_refused(signed: Path, key: Path, parts: Parts, tmp_path: Path) -> None:
    other = tmp_path / "other.ahl"
    write_bundle(other, {**parts[0], "name": "other"}, parts[1], sign=load_private(key))
    taken = members(other)["manifest.sig"]
    with pytest.raises(BundleError, match="its manifest was altered"):
        open_bundle(change(signed, lambda members: {**members, "manifest.sig": taken}), trust=load_public(pub(key)))


@pytest.mark.parametrize("size", [0, 63, 65, 1000])
def test_a_signature_of_an_odd_size_is_refused_with_or_without_a_key(signed: Path, size: int) -> None:
    with pytest.raises(BundleError, match=rf"manifest\.sig has {size} bytes"):
        open_bundle(change(signed, lambda members: {**members, "manifest.sig": bytes(size)}))


def test_a_member_may_not_be_named_like_the_signature(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"lists manifest\.sig"):
        write_bundle(tmp_path / "x.ahl", parts[0], {**parts[1], "manifest.sig": bytes(64)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_openssl_agrees(signed: Path, key: Path, tmp_path: Path) -> None:
    held = members(signed)
    for name in ("manifest.json", "manifest.sig"):
        (tmp_path / name).write_bytes(held[name])
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", pub(key)]
    command += ["-in", tmp_path / "manifest.json", "-sigfile", tmp_path / "manifest.sig"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_that_are_no_key(key: Path, tmp_path: Path) -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    locked = load_private(key).private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret")
    )
    bodies = {
        "junk": b"hello",
        "empty": b"",
        "ec": elliptic.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()),
        "ec.pub": elliptic.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo),
        "locked": locked,
        "cut.pub": pub(key).read_bytes()[:50],
        "cut": key.read_bytes()[:80],
    }
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
    for load, name, said in (
        (load_private, "junk", "not a private key"),
        (load_private, "empty", "not a private key"),
        (load_private, "cut", "not a private key"),
        (load_private, "ec", "not an Ed25519 key"),
        (load_private, "locked", "the key has a passphrase"),
        (load_private, "keys/line.key.pub", "this is a public key: sign with the private key"),
        (load_private, "gone", "No such file"),
        (load_private, "keys", "directory"),
        (load_public, "junk", "not a public key"),
        (load_public, "cut.pub", "not a public key"),
        (load_public, "ec.pub", "not an Ed25519 key"),
        (load_public, "keys/line.key", "this is a private key: give the public key"),
        (load_public, "gone", "No such file"),
    ):
        with pytest.raises(SigningError, match=said) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def runtime(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ahl_runtime.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_refuses_what_is_not_trusted(
    signed: Path, bundle_path: Path, key: Path, cells: list[Path]
) -> None:
    for command in (["score", cells[0], "--bundle"], ["check"]):
        assert runtime(*command, signed, "--trust", pub(key)).returncode == 0
        done = runtime(*command, bundle_path, "--trust", pub(key))
        assert done.returncode == 2 and done.stdout == ""
        assert (
            done.stderr == f"error: {bundle_path}: refused: it is not signed, and this device accepts only signed "
            "bundles: export it with --sign\n"
        )


def test_without_the_extra_trust_is_an_error_and_nothing_else_is(signed: Path, key: Path) -> None:
    code = "import sys; sys.modules['cryptography'] = None; from ahl_runtime.cli.main import main; main()"
    command = [sys.executable, "-c", code, "check", str(signed)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    done = subprocess.run([*command, "--trust", str(pub(key))], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: signatures need the extra [signing]: pip install 'ahl[signing]'\n"
