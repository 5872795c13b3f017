"""Hyper-Kvasir, upper tract: anatomical landmarks are normal, pathological findings are the four anomaly classes."""

from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, Sample, image_files, locate, need_normals, subfolders

LICENCE = "CC BY 4.0"
PART = "upper-gi-tract"


def read(root: Path) -> Dataset:
    """root: holds upper-gi-tract/ with anatomical-landmarks/<place>/ and pathological-findings/<finding>/, or
    labeled-images/ with upper-gi-tract/ (as the archive unpacks)."""
    folder = locate("hyperkvasir", root, ("", "labeled-images", "hyper-kvasir/labeled-images"), PART) / PART
    samples = [Sample(f, 0, GOOD) for place in subfolders(folder / "anatomical-landmarks") for f in image_files(place)]
    samples += [
        Sample(f, 1, finding.name)
        for finding in subfolders(folder / "pathological-findings")
        for f in image_files(finding)
    ]
    return Dataset("hyperkvasir", need_normals("hyperkvasir", folder, samples), folder, LICENCE)
