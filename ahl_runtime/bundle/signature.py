"""Ed25519 signatures over a bundle's manifest, and the key files. Needs the extra [signing].

The signature covers the bytes of manifest.json. These hold the SHA-256 of every other member. The signature itself is
a member of 64 bytes. Keys are PEM files: PKCS#8 for the private key, SubjectPublicKeyInfo for the public key.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from ahl_runtime.core.errors import SigningError
from ahl_runtime.core.files import write_new

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIZE = 64
_MAX_KEY_BYTES = 1 << 16


def generate(path: Path) -> Path:
    """Write a new private key to `path`, readable by its owner alone, and its public key to `path`.pub.

    Returns the path of the public key. SigningError if one of the files exists already or cannot be written. After an
    error neither file is new.
    """
    _require()
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public_path = path.with_name(f"{path.name}.pub")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    public = key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    written: list[Path] = []
    try:
        for place, body, mode in ((path, private, 0o600), (public_path, public, 0o644)):
            write_new(place, [body], mode)
            written.append(place)
    except OSError as error:
        for half in written:
            with contextlib.suppress(OSError):
                half.unlink()
        if isinstance(error, FileExistsError):
            raise SigningError(f"{place}: exists already, and keys are never overwritten: choose another") from error
        raise SigningError(f"{place}: cannot be written ({error.strerror or error}): check the folder") from error
    return public_path


def load_private(path: Path) -> Ed25519PrivateKey:
    """The private key in a file that `generate` wrote. SigningError."""
    text = _read(path)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PUBLIC KEY" in text:
        raise SigningError(f"{path}: this is a public key: sign with the private key, the file without .pub")
    try:
        key = load_pem_private_key(text, password=None)
    except TypeError as error:  # the library raises TypeError for a key with a passphrase
        raise SigningError(f"{path}: the key has a passphrase: give a key without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningError(f"{path}: not a private key in PEM: make one with ahl keygen") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{path}: not an Ed25519 key: make one with ahl keygen")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """The public key in a file that `generate` wrote. SigningError."""
    text = _read(path)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in text:
        raise SigningError(
            f"{path}: this is a private key: give the public key, PATH.pub, and keep the private key off the device"
        )
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningError(f"{path}: not a public key in PEM: give the .pub file that ahl keygen wrote") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningError(f"{path}: not an Ed25519 key: give the .pub file that ahl keygen wrote")
    return key


def verifies(key: Ed25519PublicKey, signature: bytes, manifest: bytes) -> bool:
    """Did the owner of `key` sign these bytes of manifest.json?"""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True


def _read(path: Path) -> bytes:
    _require()
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise SigningError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error


def _require() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise SigningError("signatures need the extra [signing]: pip install 'ahl[signing]'") from error
