"""The memory of normal patches: the distance by a second implementation, and a coreset that covers."""

import pytest
import torch

from ahl_train.heads.memory_bank import MemoryBank


def filled(patches, size):
    bank = MemoryBank(patches.shape[-1], size)
    bank.fit(patches)
    return bank


def test_the_distance_is_to_the_nearest_kept_patch():
    patches, fresh = torch.randn(8, 6, 5), torch.randn(3, 6, 5)
    bank = filled(patches, 20)
    expected = torch.cdist(fresh, bank.bank[None]).amin(-1).square() / bank.scale
    torch.testing.assert_close(bank(fresh), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bank(patches).mean(), torch.tensor(1.0))
    assert all((patches.flatten(0, 1) == kept).all(1).any() for kept in bank.bank)


def test_along_a_few_axes_the_others_count_for_nothing():
    """Normals vary along a plane in five dimensions: what leaves it is not seen, what lies far off within it is."""
    plane = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0))).Q
    patches = torch.randn(40, 6, 2) @ (3 * plane[:2]) + 0.01 * torch.randn(40, 6, 5)
    bank = MemoryBank(5, 240, axes=2)
    bank.fit(patches)
    assert bank.bank.shape == (240, 2)
    fresh = patches[:3]
    torch.testing.assert_close(bank(fresh), torch.zeros(3, 6), atol=1e-3, rtol=0)
    torch.testing.assert_close(bank(fresh + 9 * plane[4]), torch.zeros(3, 6), atol=0.1, rtol=0)
    assert bank(fresh + 90 * plane[0]).min() * bank.scale > 1_000


def test_a_rare_kind_of_patch_is_kept():
    """Three of 3,000 lie elsewhere: chosen at random, 20 patches would miss them nearly always."""
    patches = 0.1 * torch.randn(300, 10, 5)
    patches[[7, 100, 250], 3] += 5
    bank = filled(patches, 20)
    assert bank(patches).max() * bank.scale < 1


def test_the_same_patches_give_the_same_memory():
    patches = torch.randn(40, 10, 5)
    assert torch.equal(filled(patches, 30).bank, filled(patches.clone(), 30).bank)


@pytest.mark.parametrize("size", [12, 50])
def test_fewer_patches_than_it_has_room_for_are_all_kept(size):
    patches = torch.randn(3, 4, 5)
    torch.testing.assert_close(filled(patches, size)(patches), torch.zeros(3, 4), atol=1e-4, rtol=0)
