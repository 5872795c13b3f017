"""The bundle, one .ahl file: written whole or not at all, and checked completely when it is read."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from ahl_runtime.bundle import archive, signature
from ahl_runtime.bundle.archive import Refused
from ahl_runtime.bundle.manifest import FORMAT, MANIFEST, SIGNATURE, Artefact, Manifest, Member
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import BundleError
from ahl_runtime.core.files import as_path, write_whole
from ahl_runtime.core.text import printable
from calibration import Calibration, CalibrationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["FORMAT", "MAX_BYTES", "Bundle", "Manifest", "open_bundle", "write_bundle"]

MAX_BYTES = 1 << 30
MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked bundle. All of it is in memory.

    `digest`: SHA-256 of manifest.json, in hex. `signed`: the bundle has a signature. The signature was verified only
    if the bundle was opened with a trusted key.
    """

    path: Path
    manifest: Manifest
    digest: str
    signed: bool
    _members: Mapping[str, bytes] = field(repr=False)

    def read(self, member: str) -> bytes:
        """The bytes of one member. BundleError if the bundle has no member of that name."""
        try:
            return self._members[member]
        except KeyError:
            raise BundleError(f"{self.path}: no member {member!r}; it holds {', '.join(self._members)}") from None

    def calibration(self, artefact: Artefact) -> Calibration:
        """The calibration of an artefact. BundleError if it is damaged or does not match the manifest."""
        listed = artefact.calibration
        try:
            loaded = Calibration.load(io.BytesIO(self.read(listed.file)))
        except CalibrationError as error:
            raise BundleError(f"{self.path}: {listed.file}: {error}") from error
        if loaded.n != listed.n:
            raise BundleError(
                f"{self.path}: {listed.file} has {loaded.n} normals, the manifest says {listed.n}: export again"
            )
        return loaded

    def reference(self, artefact: Artefact) -> Iterator[tuple[str, NDArray[np.uint8], float]]:
        """The reference frames, all normal: file, pixels uint8 [H, W, 3], expected score. ImageError."""
        for frame in artefact.reference:
            yield frame.file, decode(self.read(frame.file)), frame.score


def write_bundle(
    path: Path,
    manifest_fields: Mapping[str, Any],
    members: Mapping[str, bytes | Path],
    *,
    sign: Ed25519PrivateKey | None = None,
) -> Bundle:
    """Write a bundle, sign it if `sign` is given, and read it back.

    `manifest_fields`: the fields of the manifest without `format` and `members`. This function adds these two, and
    `created` if it is missing. `members`: for each name, the bytes or the file that holds them. BundleError if a field
    or a name is wrong, a file cannot be read or the disk is full. After an error no new file is left, and an older
    bundle at `path` is unchanged.
    """
    try:
        bodies = {
            archive.check_name(name): body if isinstance(body, bytes) else body.read_bytes()
            for name, body in sorted(members.items())
        }
        fields = {
            "created": datetime.now(UTC).replace(microsecond=0),
            **manifest_fields,
            "format": FORMAT,
            "members": {name: _member(body).model_dump() for name, body in bodies.items()},
        }
        text = Manifest.model_validate(fields).model_dump_json(indent=2).encode()
        whole = {MANIFEST: text, **bodies, **({SIGNATURE: sign.sign(text)} if sign else {})}
        size = sum(map(len, whole.values()))
        if len(whole) > archive.MAX_MEMBERS or size > MAX_BYTES:
            raise Refused(
                f"{len(whole)} members of {size} bytes together, the limits are {archive.MAX_MEMBERS} and {MAX_BYTES}"
            )
        _parse(text)
        write_whole(path, archive.pack(whole))
    except Refused as error:
        raise BundleError(f"{path}: cannot be written: {error}") from error
    except ValidationError as error:
        raise BundleError(f"{path}: cannot be written: {_wrong_fields(error)}") from error
    except PydanticSerializationError as error:
        raise BundleError(f"{path}: cannot be written: provenance is not plain JSON ({error})") from error
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be written ({error.strerror or error}"
            f"{f': {error.filename}' if error.filename else ''}): check the folder and its free space"
        ) from error
    return open_bundle(path, trust=sign.public_key() if sign else None)


def open_bundle(
    path: str | os.PathLike[str], *, trust: Ed25519PublicKey | None = None, max_bytes: int = MAX_BYTES
) -> Bundle:
    """Read and check a bundle: its zip, its signature, its manifest, the SHA-256 of every member. Writes no files.

    `trust`: refuse bundles that the owner of this key did not sign. None accepts any signature, or no signature.
    BundleError, with the path and the reason, for a file that is missing, larger than `max_bytes`, damaged,
    altered, packed again by another program, or of a format version that this runtime does not read.
    """
    path = as_path(path, "the bundle", BundleError)
    try:
        with path.open("rb") as file:
            # A pipe and a device report size 0. They cannot be searched: read them whole.
            sized = file if os.fstat(file.fileno()).st_size else io.BytesIO(file.read(max_bytes + 1))
            members = archive.unpack(sized, max_bytes)
        text = members.pop(MANIFEST, b"")
        if not text:
            raise Refused(f"it has no {MANIFEST}: not a bundle")
        signed = _check_signature(members.pop(SIGNATURE, None), text, trust)
        manifest = _parse(text)
        _check_members(manifest, members)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    except Refused as error:
        raise BundleError(f"{path}: refused: {error}") from error
    return Bundle(path, manifest, hashlib.sha256(text).hexdigest(), signed, members)


def _check_signature(found: bytes | None, text: bytes, trust: Ed25519PublicKey | None) -> bool:
    """Is there a signature? If a key is trusted, that key must have signed these bytes. Refused."""
    if found is not None and len(found) != signature.SIZE:
        raise Refused(f"{SIGNATURE} has {len(found)} bytes, a signature has {signature.SIZE}: cut or altered")
    if trust is not None:
        if found is None:
            raise Refused("it is not signed, and this device accepts only signed bundles: export it with --sign")
        if not signature.verifies(trust, found, text):
            raise Refused(
                "its signature does not match the trusted key: another key signed it, or its manifest was altered"
            )
    return found is not None


def _member(body: bytes) -> Member:
    return Member(sha256=hashlib.sha256(body).hexdigest(), size=len(body))


def _parse(text: bytes) -> Manifest:
    """The manifest. The format version is checked first, so that the error for a newer bundle says so. Refused."""
    if len(text) > MAX_MANIFEST_BYTES:
        raise Refused(f"{MANIFEST} has {len(text)} bytes, the limit is {MAX_MANIFEST_BYTES}")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{MANIFEST} is not JSON ({error})") from error
    version = fields.get("format") if isinstance(fields, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Refused(f"{MANIFEST} states no format version: not a bundle")
    if version > FORMAT:
        raise Refused(f"bundle format {version}, this runtime reads up to {FORMAT}: update it or export again")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise Refused(_wrong_fields(error)) from error


def _wrong_fields(error: ValidationError) -> str:
    """Every wrong field of a manifest, in one line."""
    wrong = [f"{'.'.join(map(str, e['loc'])) or MANIFEST}: {e['msg']}" for e in error.errors()]
    return printable(f"{MANIFEST}: " + "; ".join(wrong[:8]) + ("; ..." if len(wrong) > 8 else ""))


def _check_members(manifest: Manifest, members: Mapping[str, bytes]) -> None:
    listed = manifest.members
    for what, names in (
        ("is missing", listed.keys() - members.keys()),
        ("is not in the manifest", members.keys() - listed.keys()),
    ):
        if names:
            raise Refused(f"member {min(names)!r} {what}: cut or altered; export or copy it again")
    for name, body in members.items():
        if _member(body) != listed[name]:
            raise Refused(f"member {name!r} was altered (its SHA-256 does not match): export or copy it again")
