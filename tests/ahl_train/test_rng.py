"""Random streams: each its own, those with numbers as they were, and no module that draws from a bare seed."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import ahl_train
from ahl_train.rng import DENSITY_SEED, Stream, generator, integer

EPOCHS = 30
DRAWS = 4_000
SEEDERS = {"default_rng", "SeedSequence", "manual_seed", "seed_all", "RandomState"}
NUMBERED = {
    Stream.TEST_NORMALS: 0,
    Stream.CALIBRATION_NORMALS: 1,
    Stream.SHOTS: 2,
    Stream.DISTRIBUTIONS: 3,
    Stream.DONORS: 4,
    Stream.FOLDS: 5,
    Stream.FALSE_REJECT_ORDER: 6,
    Stream.FALSE_REJECT_NORMALS: 7,
    Stream.DEMO_ORDER: 8,
}


def streams(seed):
    """Every stream with its generator: those with places at several."""
    digest = 0xDA39A3EE5E6B4B0D
    of_places = {
        Stream.CDL_EPOCH: range(EPOCHS),
        Stream.MADE_NORMAL: range(3),
        Stream.MADE_ANOMALY: range(3),
        Stream.PSEUDO_ANOMALY: (digest, digest + 1),
    }
    for stream in Stream:
        for place in of_places.get(stream, [()]):
            yield stream, generator(seed, stream, *([place] if stream in of_places else []))


def test_no_two_streams_are_equal_or_correlated():
    rows = np.stack([g.standard_normal(DRAWS) for seed in (0, 1) for _, g in streams(seed)])
    off_diagonal = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(off_diagonal).max() < 5.5 / DRAWS**0.5


def test_no_two_streams_begin_alike():
    """numpy takes [seed], [seed, 0] and [seed, 0, 0] for one seed: (0,) and () must not meet at a place 0."""
    first = [int(g.integers(2**63)) for seed in (0, 1) for _, g in streams(seed)]
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_stream_is_the_same_again(seed):
    for stream in Stream:
        assert generator(seed, stream, 3).random() == generator(seed, stream, 3).random()
        assert integer(seed, stream, 3) == integer(seed, stream, 3)


def test_streams_with_numbers_are_as_published():
    """Other numbers would deal other images to training and test, and orphan cached features."""
    for stream, number in NUMBERED.items():
        ours, theirs = generator(11, stream), np.random.default_rng([11, number])
        assert np.array_equal(ours.permutation(1000), theirs.permutation(1000))
    digest = 0xDA39A3EE5E6B4B0D
    assert generator(11, Stream.PSEUDO_ANOMALY, digest).random() == np.random.default_rng([11, digest]).random()
    assert {s for s in Stream if isinstance(s.value, tuple)} == {*NUMBERED, Stream.PSEUDO_ANOMALY}


def test_streams_with_names_stay_as_they_are():
    """So that a run that is trained again is the same run."""
    assert integer(0, Stream.PSI_WEIGHTS) == 4142445634
    assert integer(5, Stream.CDL_EPOCH, 3) == 2557699042


def test_torch_takes_the_integers():
    for stream in Stream:
        found = integer(3, stream)
        assert (found == 3) == (stream is Stream.WEIGHTS)
        assert DENSITY_SEED < found < 2**32
        torch.Generator().manual_seed(found)


def seeded(path):
    """(line, argument's source) of each call in the file that seeds a generator."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if name in SEEDERS:
                yield node.lineno, ast.unparse(node.args[0])


def test_training_draws_from_no_bare_seed():
    """Every generator is seeded by a stream; anomalib's alone take the seed as it is."""
    allowed = {"rng.py", "rivals.py"}
    bare = [
        f"{path}:{line}: {argument}"
        for path in sorted(Path(ahl_train.__file__).parent.rglob("*.py"))
        if path.name not in allowed
        for line, argument in seeded(path)
        if argument != "DENSITY_SEED" and not argument.startswith(("integer(", "rng.integer("))
    ]
    assert bare == []
