"""`ahl keygen`: keys to sign bundles with."""

from pathlib import Path
from typing import Annotated

import typer

from ahl_export.cli import extras
from ahl_runtime.cli import console


def keygen(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="File for the private key. The public key is KEY.pub.")],
) -> None:
    """Make a pair of Ed25519 keys: the private key signs bundles, and devices trust the public key."""
    extras.require("keygen", "signing")
    from ahl_runtime.bundle.signature import generate

    public = generate(key)
    console.say_progress(
        f"written: {key}, to keep secret, and {public}; next: ahl export RUN --out NAME.ahl --sign {key}"
    )
