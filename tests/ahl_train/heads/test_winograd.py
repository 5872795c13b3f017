"""Winograd's convolution is the convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap

from ahl_train.heads.dra.winograd import conv3x3


@pytest.mark.parametrize("shape", [(14, 14), (7, 7), (4, 4), (1, 1), (5, 13)])
def test_values_and_gradients(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 40, *shape, requires_grad=True)
    weight = (torch.randn(24, 40, 3, 3) / 19).requires_grad_()
    (found,), wanted = conv3x3([maps], weight), F.conv2d(maps, weight, padding=1)
    assert torch.allclose(found, wanted, atol=1e-4)
    upstream = torch.randn_like(wanted)
    gradients = [torch.autograd.grad(y, (maps, weight), upstream) for y in (found, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_each_model_has_its_own_filters() -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(3, 2, 8, 7, 7), torch.randn(3, 5, 8, 3, 3) / 8
    wanted = torch.stack([F.conv2d(m, w, padding=1) for m, w in zip(maps, weight, strict=True)])
    assert torch.allclose(vmap(lambda m, w: conv3x3([m], w)[0])(maps, weight), wanted, atol=1e-4)


def test_maps_of_two_sizes_in_one_go() -> None:
    torch.manual_seed(0)
    maps, weight = [torch.randn(2, 8, 14, 14), torch.randn(3, 8, 7, 7)], torch.randn(5, 8, 3, 3) / 8
    for found, own in zip(conv3x3(maps, weight), maps, strict=True):
        assert torch.allclose(found, F.conv2d(own, weight, padding=1), atol=1e-4)


def test_in_double_precision_it_is_exact() -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(2, 8, 14, 14, dtype=torch.float64), torch.randn(5, 8, 3, 3, dtype=torch.float64)
    assert torch.allclose(conv3x3([maps], weight)[0], F.conv2d(maps, weight, padding=1), atol=1e-11)
