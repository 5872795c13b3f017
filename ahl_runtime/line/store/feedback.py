"""Marked images as a folder that `ahl train --feedback` takes: good/, anomaly/, and where they came from."""

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
    """Write every marked image to a new folder; how many of each label. Written aside and renamed.

    feedback.jsonl has a line for each: its file, the decision that was marked, who marked it, when and why. StoreError;
    OutputError if the folder holds anything, nothing was marked, or it cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already: choose a new folder")
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
            raise OutputError(f"{store.path}: nothing was marked yet: see ahl-runtime feedback mark")
        write_whole(aside / ABOUT, [line.encode() for line in lines])
        aside.rename(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}): check the place and its free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(aside)
    return counts


def _suffix(body: bytes) -> str:
    """By what the file is, whatever it was called; the decoder read it once, so it is one of its formats."""
    with Image.open(io.BytesIO(body)) as image:
        return f".{(image.format or 'png').lower()}"
