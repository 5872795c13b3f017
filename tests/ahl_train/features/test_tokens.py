"""Backbones of other kinds: vision transformers and Swin give a pyramid of maps, others are refused."""

from pathlib import Path

import pytest
import timm
import torch

from ahl_train.config import TrainConfig
from ahl_train.errors import WeightsError
from ahl_train.features.backbone import Backbone, BackboneSpec
from ahl_train.features.extractor import Extractor
from ahl_train.features.tokens import SIDES, TokenBackbone, open_backbone
from ahl_train.training import train


@pytest.fixture
def spec(tmp_path):
    """A backbone with random weights from a file."""

    def make(name):
        torch.manual_seed(0)
        file = tmp_path / f"{name}.pth"
        torch.save(timm.create_model(name, pretrained=False).state_dict(), file)
        return BackboneSpec(name, file)

    return make


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet18", Backbone),
        ("swin_tiny_patch4_window7_224", Backbone),
        ("vit_tiny_patch16_224", TokenBackbone),
        ("vit_small_patch14_dinov2", TokenBackbone),
        ("vit_small_patch14_reg4_dinov2", TokenBackbone),
    ],
)
def test_maps_have_the_strides_of_a_pyramid(spec, name, kind):
    found = open_backbone(spec(name))
    assert isinstance(found, kind)
    for side, sides in SIDES.items():
        with torch.inference_mode():
            maps = found.with_entry(torch.zeros(1, 3, side, side))
        assert [m.shape[-1] for m in maps] == [*sides, sides[-1]]
        assert [m.shape[1] for m in maps] == [*found.channels, found.entry_channels]


def test_a_vits_maps_are_its_blocks_patches_in_place(spec):
    """Against timm's own tokens: prefix tokens dropped, rows and columns in order."""
    given = spec("vit_tiny_patch16_224")
    net = timm.create_model(given.name, pretrained=False).eval()
    net.load_state_dict(torch.load(given.weights, weights_only=True))
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        second = open_backbone(given)(x)[1]
        tokens = net.get_intermediate_layers(x, n=[8], norm=True)[0]
    torch.testing.assert_close(second, tokens.transpose(1, 2).reshape(1, 192, 14, 14), atol=1e-4, rtol=1e-4)


def test_a_frame_that_is_moved_by_a_patch_moves_the_map(spec):
    """A bright patch shows where it lies: at both scales, also where the patches are of 14 px."""
    found = open_backbone(spec("vit_small_patch14_dinov2"))
    for side in SIDES:
        dark, lit = torch.zeros(1, 3, side, side), torch.zeros(1, 3, side, side)
        lit[..., 2 * 16 : 3 * 16, 5 * 16 : 6 * 16] = 3.0
        with torch.inference_mode():
            change = (found(lit)[1] - found(dark)[1]).square().sum(1)[0]
        assert divmod(int(change.argmax()), change.shape[1]) == (2, 5)


def test_the_extractors_shapes_are_those_of_a_convolutional_backbone(spec):
    extractor = Extractor(spec("vit_tiny_patch16_224"))
    features = extractor(torch.zeros(1, 60, 80, 3, dtype=torch.uint8))
    assert {name: tuple(values.shape[1:]) for name, values in features.items()} == extractor.shapes


@pytest.mark.parametrize("name", ["mixer_s16_224", "beit_base_patch16_224"])
def test_one_that_does_not_fit_is_refused_and_leaves_nothing(spec, name, small_set, tmp_path):
    given = spec(name)
    config = TrainConfig(str(small_set), shots=2, backbone=name, backbone_weights=given.weights)
    with pytest.raises(WeightsError, match=rf"backbone '{name}' does not fit .*: choose a network") as raised:
        train(config, tmp_path / "run", cache=tmp_path / "cache")
    assert "\n" not in str(raised.value)
    assert not Path(tmp_path / "run").exists() and not Path(tmp_path / "cache").exists()
