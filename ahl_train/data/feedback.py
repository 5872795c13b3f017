"""Feedback: images labelled on the device become training images, never test or calibration images."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ahl_train.data.images import verify
from ahl_train.data.readers import Sample
from ahl_train.data.samples import GOOD, image_files
from ahl_train.data.split import Split
from ahl_train.errors import DataError

ANOMALY = "anomaly"


def add(dealt: Split, folder: Path) -> tuple[Split, dict[str, Any]]:
    """The split with the images of folder/good and folder/anomaly at the end of its training side, and a record.

    People label images because a detector erred on them. Such images are not a fair sample of the line, so none
    calibrates. Unreadable images are left out, and so are images with exactly the pixels of a test, calibration or
    training image.
    The record, JSON-able: `folder`, numbers of `good` and `anomaly`, `left_out` with reasons, `sha256` of what was
    added. DataError if there are no images, or if an image has both labels.
    """
    found = [
        Sample(file.absolute(), label, kind, split="train")
        for label, kind in ((0, GOOD), (1, ANOMALY))
        if (folder / kind).is_dir()
        for file in image_files(folder / kind)
    ]
    if not found:
        raise DataError(f"{folder}: no images in its folders {GOOD} and {ANOMALY}: see ahl-runtime feedback export")
    readable, unreadable = verify(found)
    left_out = [str(u) for u in unreadable]
    placed = {
        digest: reason
        for reason, group in (
            ("it is a training image", (*dealt.train_normal, *dealt.train_anomaly)),
            ("it is a calibration image", dealt.calibration_normal),
            ("it is a test image", dealt.test),
        )
        for digest in verify([*group, *_uncut(group)])[0].values()
    }
    added: dict[str, Sample] = {}
    for sample, digest in readable.items():
        twin = added.get(digest)
        if twin and twin.label != sample.label:
            raise DataError(f"{sample.path} is the same image as {twin.path}: it cannot be {GOOD} and {ANOMALY}")
        if twin or digest in placed:
            left_out.append(f"{sample.path}: {placed.get(digest, 'it is in the feedback twice')}")
        else:
            added[digest] = sample
    normals = tuple(s for s in added.values() if s.label == 0)
    anomalies = tuple(s for s in added.values() if s.label == 1)
    record = {
        "folder": str(folder),
        GOOD: len(normals),
        ANOMALY: len(anomalies),
        "left_out": left_out,
        "sha256": sorted(added),
    }
    grown = replace(
        dealt,
        train_normal=dealt.train_normal + normals,
        train_anomaly=dealt.train_anomaly + anomalies,
    )
    return grown, record


def _uncut(samples: Iterable[Sample]) -> list[Sample]:
    """The whole images of samples that are patches."""
    return [Sample(path, 0, GOOD) for path in {s.path for s in samples if s.crop}]
