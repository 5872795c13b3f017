"""Small stand-ins that several tests share: random features, an extractor without a network."""

import hashlib
import shutil
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ahl_train.config import Schedule
from ahl_train.features.maps import pool_statistics
from ahl_train.heads.base import NORMAL, PSEUDO, SEEN
from ahl_train.method.cdl import CDL, Task, _Batch

CHANNELS, ENTRY, BEFORE, MIDDLE = 3, 2, 1, 2
SHAPES = MappingProxyType(
    {
        "fine": (CHANNELS, 14, 14),
        "coarse": (CHANNELS, 7, 7),
        "entry": (ENTRY, 14, 14),
        "before": (BEFORE, 28, 28),
        "middle": (MIDDLE, 14, 14),
        "context": (BEFORE + MIDDLE, 14, 14),
        "pooled": (3 * BEFORE,),
    }
)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def make_features(n, seed=0, shift=0.0):
    """What features.Extractor gives for n frames, of few channels."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(n, *shape, generator=generator) + shift

    before, middle, context = draw(BEFORE, 28, 28), draw(MIDDLE, 14, 14), draw(BEFORE + MIDDLE, 14, 14)
    return {
        "fine": draw(CHANNELS, 14, 14),
        "coarse": draw(CHANNELS, 7, 7),
        "entry": draw(ENTRY, 14, 14),
        "before": before,
        "middle": middle,
        "context": context,
        "pooled": pool_statistics(before),
    }


@pytest.fixture
def features():
    return make_features


class ToyExtractor(nn.Module):
    """Stands in for features.Extractor: features are sums of pixels. Counts the frames that it has seen."""

    channels = CHANNELS

    def __init__(self, weights="one", supersample=1):
        super().__init__()
        self.spec = SimpleNamespace(name="toy", digest=hashlib.sha256(weights.encode()).hexdigest())
        self.supersample, self.seen = supersample, 0

    device = torch.device("cpu")
    shapes = SHAPES

    def forward(self, image):
        return self.of_scales(*self.preprocess(image))

    def preprocess(self, image):
        level = image.float().mean((1, 2)) / 255  # [N, 3]
        return level, level

    def of_scales(self, level, _):
        self.seen += len(level)
        coarse = level[:, :, None, None] + torch.arange(49.0).view(1, 1, 7, 7) / 49
        fine = nn.functional.interpolate(coarse, scale_factor=2)
        return {
            "fine": fine,
            "coarse": coarse,
            "entry": fine[:, :ENTRY],
            "before": nn.functional.interpolate(fine[:, :BEFORE], scale_factor=2),
            "middle": fine[:, :MIDDLE],
            "context": fine[:, : BEFORE + MIDDLE],
            "pooled": pool_statistics(coarse[:, :BEFORE]),
        }


@pytest.fixture
def toy_extractor():
    return ToyExtractor


def train_plainly(base, groups, epochs=10):
    """Train a base on the features of normals, seen and pseudo anomalies, all in one task."""
    frames = {name: torch.cat([g[name] for g in groups]) for name in base.inputs}
    sizes = np.cumsum([len(g["fine"]) for g in groups])
    rows = tuple(np.split(np.arange(sizes[-1]), sizes[:-1]))
    schedule = Schedule(epochs, inner_steps=0, outer_steps=10, batch=24, watched=4, pseudo=None, outer_lr=0.02)
    base.fit(groups[NORMAL], groups[SEEN], groups[PSEUDO])
    cdl = CDL(base, [Task(rows, rows)], lambda r: {name: f[r] for name, f in frames.items()}, schedule, seed=0)
    for _ in range(epochs):
        cdl.run_epoch()
    return base.eval()


@pytest.fixture
def trained():
    return train_plainly


def batch_loss(base, features, group):
    """The loss of one batch of one group, as CDL computes it; gradients are left in the base."""
    rows = tuple(np.array([g]) for g in (NORMAL, SEEN, PSEUDO))
    schedule = Schedule(epochs=1, inner_steps=1, outer_steps=1, batch=6, watched=2, pseudo=None)
    cdl = CDL(base, [Task(rows, rows)], lambda r: features, schedule, seed=0)
    stacked = {name: p.unsqueeze(0) for name, p in base.named_parameters()}
    prepared = base.prepare({name: features[name] for name in base.inputs})
    batch = {name: f.unsqueeze(0) for name, f in prepared.items()}
    base.zero_grad()
    count = len(features["fine"])
    loss = cdl._losses(stacked, _Batch(batch, torch.arange(count)[None, :, None], torch.full((count,), group)))
    loss.sum().backward()
    return loss.item()


def gradients(base, features, group):
    """The names of the parameters that the loss of one batch of one group moves."""
    batch_loss(base, features, group)
    return {name for name, p in base.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


@pytest.fixture
def loss_of():
    return batch_loss


@pytest.fixture
def moved_by():
    return gradients


def copy_samples(root, samples):
    """Their images in MVTec AD layout: normals to train, anomalies to test."""
    for i, sample in enumerate(samples):
        target = root / ("test" if sample.label else "train") / sample.kind
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.path, target / f"{i:02}.png")
    return root


@pytest.fixture(scope="session")
def copied():
    return copy_samples
