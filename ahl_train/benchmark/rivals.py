"""Rivals in the benchmark: anomalib's PatchCore and PaDiM with our backbone's weights. They train on normals only.

Memory bank, coreset, Gaussians, maps and scores are anomalib's own code. The weights, frames and seeds are ours.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from ahl_train import accelerator, memory
from ahl_train.data.images import Sample, load
from ahl_train.errors import ConfigError, MissingExtraError
from ahl_train.features.backbone import BackboneSpec, load_network

SIDE = 256  # px, side of a frame
STAGES = (-3, -2)  # timm's stages of strides 8 and 16
CORESET = 0.1  # share of patches that PatchCore keeps: anomalib's default
BANK = 2_000  # patches that PatchCore keeps at most: its coreset takes time in proportion to BANK x all patches
CHANNELS = 100  # that PaDiM draws, or all if there are fewer: anomalib's default for its default network
_STRIDES = [8, 16]
_BATCH = 16  # frames


@dataclass(frozen=True)
class Rival:
    """A column of the benchmark's table: `build` makes anomalib's model, `fit` fits it to the frames it has seen."""

    title: str
    build: Callable[[str, list[int]], nn.Module]  # of timm's name and the stages' indices
    fit: Callable[[Any], None]


def _patchcore(backbone: str, layers: list[int]) -> nn.Module:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    # The annotation asks for names, but the feature extractor also accepts timm's indices.
    return PatchcoreModel(layers, backbone, pre_trained=False)  # type: ignore[arg-type]


def _padim(backbone: str, layers: list[int]) -> nn.Module:
    from anomalib.models.components import TimmFeatureExtractor
    from anomalib.models.image.padim.torch_model import PadimModel

    channels = sum(TimmFeatureExtractor(backbone, layers, pre_trained=False).out_dims)
    # The annotation is wrong here too, as for PatchCore.
    return PadimModel(backbone, layers, pre_trained=False, n_features=min(CHANNELS, channels))  # type: ignore[arg-type]


def _choose_coreset(model: Any) -> None:
    patches = sum(map(len, model.embedding_store))
    model.subsample_embedding(min(CORESET, BANK / patches))


RIVALS = {
    "patchcore": Rival("PatchCore", _patchcore, _choose_coreset),
    "padim": Rival("PaDiM", _padim, lambda model: model.fit()),
}
SAID = (
    f"PatchCore (a coreset of {CORESET:.0%} of the patches, {BANK:,} at most) and PaDiM ({CHANNELS} channels): "
    f"anomalib's, on the same weights, strides 8 and 16, frames of {SIDE} x {SIDE} px; they see no anomaly before the "
    "test."
)


def require() -> None:
    """MissingExtraError if anomalib is not installed."""
    if find_spec("anomalib") is None:
        raise MissingExtraError(f"{' and '.join(RIVALS)} need the extra [rivals]: pip install 'ahl[train,rivals]'")


def build(name: str, spec: BackboneSpec) -> nn.Module:
    """A rival with the backbone's weights, not fitted yet. WeightsError if there are no weights.

    ConfigError if anomalib does not find the network's layers of strides 8 and 16 by timm's names.
    """
    net = load_network(spec)
    infos: Any = net.feature_info
    stages = len(infos)
    with _quiet():
        model = RIVALS[name].build(spec.name, [stages + stage for stage in STAGES])
    theirs, ours = _network(model), net.state_dict()
    wanted = theirs.state_dict()
    strides = getattr(model.get_submodule("feature_extractor"), "reductions", None)
    if strides != _STRIDES or not wanted.keys() <= ours.keys():
        raise ConfigError(f"{name} finds no layers of strides 8 and 16 in {spec.name!r}: choose another --backbone")
    theirs.load_state_dict({key: ours[key] for key in wanted})
    return model.requires_grad_(False)


def _network(model: nn.Module) -> nn.Module:
    """The timm network inside a rival."""
    return model.get_submodule("feature_extractor.feature_extractor")


class Found(NamedTuple):
    """A rival's result for a frame: higher is more anomalous."""

    score: float
    map: NDArray[np.float32] | None  # [SIDE, SIDE]; None if maps are not kept


class Rivals:
    """Results of rivals on the frames of a dataset. A rival is fitted once for each seed and set of train normals."""

    def __init__(self, spec: BackboneSpec, device: torch.device, *, maps: bool = False) -> None:
        """``maps``: also keep the maps, a quarter of a megabyte for each frame, seed and rival."""
        self._spec, self._device, self._maps = spec, device, maps
        self._found: dict[tuple[str, int, tuple[Sample, ...]], dict[Sample, Found]] = {}

    def find(self, name: str, seed: int, normals: tuple[Sample, ...], samples: Sequence[Sample]) -> dict[Sample, Found]:
        """Fit a rival to ``normals`` and return its results for all other ``samples``.

        It always scores all of them, so the result of a cell does not depend on the cells before it.
        ConfigError, WeightsError, and DataError for an unreadable frame.
        """
        key = name, seed, normals
        if key not in self._found:
            trained = set(normals)
            others = [sample for sample in samples if sample not in trained]
            self._found[key] = dict(zip(others, self._compute(name, seed, normals, others), strict=True))
        return self._found[key]

    @torch.inference_mode()
    def fit(self, name: str, seed: int, normals: Sequence[Sample]) -> nn.Module:
        """A rival fitted to normals, in eval mode, on the device."""
        memory.release()  # the coreset takes thousands of rounds: their small results would stay between large blocks
        with _seeded(seed), accelerator.ieee():
            model = build(name, self._spec).to(self._device)
            for frames in self._batches(model, normals):
                model.train()(frames)
            with _quiet():
                RIVALS[name].fit(model)
        return model.eval()

    @torch.inference_mode()
    def _compute(self, name: str, seed: int, normals: Sequence[Sample], others: Sequence[Sample]) -> list[Found]:
        model = self.fit(name, seed, normals)
        found: list[Found] = []
        with accelerator.ieee():
            for frames in self._batches(model, others):
                result = model(frames)
                maps = result.anomaly_map[:, 0].cpu().numpy() if self._maps else [None] * len(frames)
                found += map(Found, result.pred_score.flatten().tolist(), maps)
        return found

    def _batches(self, model: nn.Module, samples: Sequence[Sample]) -> Iterator[Tensor]:
        """float32 [N, 3, SIDE, SIDE], normalised as the backbone's own configuration says, on the device."""
        config = resolve_model_data_config(_network(model))
        mean, std = (torch.tensor(config[key], device=self._device).view(3, 1, 1) for key in ("mean", "std"))
        for start in range(0, len(samples), _BATCH):
            frames = torch.cat([_frame(sample) for sample in samples[start : start + _BATCH]])
            yield (frames.to(self._device) - mean) / std


def _frame(sample: Sample) -> Tensor:
    """float32 [1, 3, SIDE, SIDE] from 0 to 1, resized as anomalib does: bilinear, antialiased."""
    pixels = torch.from_numpy(load(sample).copy()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch and numpy's global generator, which anomalib draws from. Restores numpy's state at the end."""
    before = np.random.get_state()
    torch.manual_seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of anomalib's imports and the progress bar of its coreset."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
