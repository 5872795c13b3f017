"""Fisher's discriminant of few anomalies: by a second implementation, left out, and where one lies far out."""

import numpy as np
import torch
from sklearn.covariance import LedoitWolf

from ahl_train.heads.discriminant import Discriminant

DIM, SHARE = 12, 0.1


def drawn(n, seed, shift=0.0):
    """float32 [n, DIM], dimensions in other units that depend on each other."""
    mix = np.random.default_rng(99).normal(size=(DIM, DIM)) * np.logspace(-1, 1, DIM)
    return torch.tensor((np.random.default_rng(seed).normal(size=(n, DIM)) + shift) @ mix, dtype=torch.float32)


def fitted(normals, *seen):
    """Several looks at the same anomalies, or one."""
    model = Discriminant(DIM)
    return model, model.fit(normals, torch.stack(seen))


def by_hand(normals, seen):
    """The direction, with the scatter written out in all dimensions."""
    x, a = normals.double().numpy(), seen.double().numpy()
    mean, scale = x.mean(0), x.std(0)
    covariance = LedoitWolf(assume_centered=True).fit((x - mean) / scale).covariance_
    z = (a - mean) / scale
    scatter = (z - z.mean(0)).T @ (z - z.mean(0)) / len(z)
    w = np.linalg.solve(covariance + SHARE * scatter, z.mean(0))
    return w / np.sqrt(w @ covariance @ w) / scale


def test_the_direction_by_hand():
    normals, seen = drawn(100, 0), drawn(4, 1, shift=1.0)
    model, _ = fitted(normals, seen)
    np.testing.assert_allclose(model.direction, by_hand(normals, seen), rtol=1e-3)


def test_fresh_normals_have_deviation_one_and_anomalies_lie_out():
    model, _ = fitted(drawn(4000, 0), drawn(6, 1, shift=1.0))
    fresh, anomalies = model(drawn(1000, 2)), model(drawn(100, 3, shift=1.0))
    assert abs(fresh.mean()) < 0.1 and 0.9 < fresh.std() < 1.1
    assert anomalies.mean() > 2


def test_an_anomaly_is_left_out_of_the_direction_that_judges_it():
    normals, seen = drawn(100, 0), drawn(3, 1, shift=1.0)
    _, left_out = fitted(normals, seen)
    for i in range(3):
        without, _ = fitted(normals, seen[torch.arange(3) != i])
        torch.testing.assert_close(left_out[i], without(seen[i : i + 1])[0], atol=1e-3, rtol=1e-3)


def test_all_looks_at_an_anomaly_are_left_out_together():
    normals, seen, turned = drawn(100, 0), drawn(3, 1, shift=1.0), drawn(3, 2, shift=1.0)
    model, left_out = fitted(normals, seen, turned)
    np.testing.assert_allclose(model.direction, by_hand(normals, torch.cat([seen, turned])), rtol=1e-3)
    for i in range(3):
        kept = torch.arange(3) != i
        without, _ = fitted(normals, seen[kept], turned[kept])
        torch.testing.assert_close(left_out[i], without(seen[i : i + 1])[0], atol=1e-3, rtol=1e-3)


def test_of_a_single_anomaly_nothing_is_known_of_others():
    _, left_out = fitted(drawn(100, 0), drawn(1, 1))
    assert left_out.shape == (1,) and left_out.isnan().all()


def test_one_that_lies_far_out_does_not_decide_for_all():
    normals, seen = torch.randn(4000, DIM), torch.zeros(5, DIM)
    seen[:4, 0], seen[4, 1] = 4.0, 40.0
    model, _ = fitted(normals, seen)
    assert model.direction[0] > model.direction[1]  # their mean says the opposite: 3.2 against 8
