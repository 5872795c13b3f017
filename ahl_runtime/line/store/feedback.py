"""Export marked images to a folder for `ahl train --feedback`: good/, anomaly/ and feedback.jsonl."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from ahl_runtime.core.errors import OutputError
from ahl_runtime.core.files import write_whole
from ahl_runtime.line.store.store import Store

ABOUT = "feedback.jsonl"


def export(store: Store, folder: Path) -> Counter[str]:
    """Write every marked image to a new folder; returns the number of images of each label.

    The files are written to a temporary folder, which is then renamed. feedback.jsonl has a line for each image: its
    file, the marked decision, who marked it, when and why. StoreError; OutputError if the folder is not empty, if no
    image is marked, or if the folder cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(f"{folder}: already exists: choose a new folder")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    counts: Counter[str] = Counter()
    try:
        for label in ("good", "anomaly"):
            (aside / label).mkdir(parents=True)
        lines = []
        for image in store.feedback():
            file = f"{image.label}/{image.sha256[:16]}{_suffix(image.image)}"
            write_whole(aside / file, [image.image])
            lines.append(json.dumps({"file": file, "label": image.label, **image.about}, allow_nan=False) + "\n")
            counts[image.label] += 1
        if not counts:
            raise OutputError(f"{store.path}: no image is marked yet: see ahl-runtime feedback mark")
        write_whole(aside / ABOUT, [line.encode() for line in lines])
        aside.rename(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}): check the path and its free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(aside)
    return counts


def _suffix(body: bytes) -> str:
    """The suffix by the file's content, not by its name; the line has decoded the file before."""
    with Image.open(io.BytesIO(body)) as image:
        return f".{(image.format or 'png').lower()}"
