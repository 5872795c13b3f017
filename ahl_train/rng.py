"""Random streams by name: a list of everything that training draws at random, so that no two uses share numbers.

A stream belongs to a seed, a ``Stream`` and, for repeated draws, a place such as an epoch. If the ``Stream``'s value
is a name, the SHA-256 of the three seeds the stream.

If the value is numbers, the stream is older than this list and stays as it was (numpy takes the seed, then the
numbers). It decides which images train, calibrate and are tested, or which pseudo anomalies are made of them. A
change would invalidate published results, the folds of unfinished runs and cached features.

PatchCore and PaDiM are not in the list: anomalib draws from global generators, which take the seed unchanged.
"""

import hashlib
from enum import Enum, unique

import numpy as np

# AHL(Density) is fitted in the same way in every run, whatever the run's seed. This seed determines its clusters, the
# patches for its covariances and memories, and the projection that chooses a coreset. Another number changes its
# published results: .007 of AUROC on HeadCT. No first weights are drawn from it: no run takes it twice.
DENSITY_SEED = 0


@unique
class Stream(Enum):
    """What is drawn. The value is the numbers that follow the seed (fixed for compatibility), or a name."""

    TEST_NORMALS = (0,)
    CALIBRATION_NORMALS = (1,)
    SHOTS = (2,)
    DISTRIBUTIONS = (3,)  # HADG; also which normals the density is fitted on, and the rows of the last batch norms
    DONORS = (4,)  # images whose patches go into a normal's pseudo anomaly
    FOLDS = (5,)
    FALSE_REJECT_ORDER = (6,)  # of the calibration normals, in benchmarks/false_rejects.py
    FALSE_REJECT_NORMALS = (7,)  # the normals that benchmarks/false_rejects.py trains on
    DEMO_ORDER = (8,)  # of the frames that the demo's drift alarm sees
    PSEUDO_ANOMALY = ()  # the place is 64 bits of the image's digest: cached features are of these pixels
    CDL_EPOCH = "cdl epoch"
    WATCHED_SAMPLES = "watched samples"  # samples whose scores psi learns from
    WEIGHTS = "weights"  # initial weights of the heads; `integer` gives the seed itself
    PSI_WEIGHTS = "psi weights"
    PRIOR = "prior"  # of the deviation loss
    MADE_NORMAL = "made normal"  # of ``ahl data synth``; the place is the image's number
    MADE_ANOMALY = "made anomaly"


def generator(seed: int, stream: Stream, *place: int) -> np.random.Generator:
    """The stream's generator, at its start: equal for equal seed, stream and place. All numbers are 0 or more."""
    if isinstance(stream.value, tuple):
        return np.random.default_rng([seed, *stream.value, *place])
    name = "/".join(map(str, (seed, stream.value, *place)))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big"))


def integer(seed: int, stream: Stream, *place: int) -> int:
    """A seed for a generator of torch, 0 or more; of WEIGHTS the seed itself, as it was before this list.

    Published results of DevNet depend on the first weights more than on all other draws: other ones change the AUROC of
    a run by up to .05. No other stream gives torch the seed itself.
    """
    return seed if stream is Stream.WEIGHTS else int(generator(seed, stream, *place).integers(2**32))
