"""BrainMRI: slices without (no/) and with (yes/) a tumour."""

from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, Sample, image_files, locate, need_normals

LICENCE = "see the source (the rights are the original authors')"


def read(root: Path) -> Dataset:
    """root: holds no/ and yes/, or brain_tumor_dataset/ with these (the archive holds both copies: one is read)."""
    folder = locate("brainmri", root, ("", "brain_tumor_dataset"), "no")
    samples = [Sample(f, 0, GOOD) for f in image_files(folder / "no")]
    samples += [Sample(f, 1, "tumour") for f in image_files(folder / "yes")]
    return Dataset("brainmri", need_normals("brainmri", folder, samples), folder, LICENCE)
