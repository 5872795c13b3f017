"""Choose the order statistic for the threshold, and compute how many normals a promise needs.

The threshold is the (n - k)-th of n sorted normal scores, so k scores may be strictly above it. If the normals are
exchangeable, the true false-reject rate of this threshold follows Beta(k + 1, n - k) for continuous scores. With ties
the rate is stochastically smaller, because only scores strictly above the threshold are rejected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from calibration import checks
from calibration.beta import beta_cdf
from calibration.errors import ScoresError


def attained_confidence(n: int, k: int, alpha: float) -> float:
    """P(Beta(k + 1, n - k) <= alpha): the confidence that the rate is at most alpha with k exceedances of n."""
    return beta_cdf(alpha, k + 1, n - k)


def mean_rank(n: int, alpha: float) -> int | None:
    """The largest k with (k + 1) / (n + 1) <= alpha: the split-conformal quantile. None if there is none."""
    k = int(alpha * (n + 1)) + 1
    while k >= 0 and (k + 1) / (n + 1) > alpha:
        k -= 1
    return k if k >= 0 else None


def confident_rank(n: int, alpha: float, confidence: float) -> int | None:
    """The largest k < n with P(Beta(k + 1, n - k) <= alpha) >= confidence. None if there is none."""
    if attained_confidence(n, 0, alpha) < confidence:
        return None
    low, high = 0, n  # the condition holds for low, and not for high
    while high - low > 1:
        middle = (low + high) // 2
        if attained_confidence(n, middle, alpha) >= confidence:
            low = middle
        else:
            high = middle
    return low


def chosen_rank(n: int, alpha: float, confidence: float) -> int | None:
    """The k of `fit`: the confident rank, or 0 if there is none. It always satisfies (k + 1) / (n + 1) <= alpha.

    None if even k = 0 exceeds alpha on average. (The mean is the stricter condition if the confidence is close to one
    half.)
    """
    on_average = mean_rank(n, alpha)
    return None if on_average is None else min(on_average, confident_rank(n, alpha, confidence) or 0)


def needs_for_mean(alpha: float) -> int:
    """The fewest normals with 1 / (n + 1) <= alpha: 99 for 1 %."""
    n = max(1, math.floor(1.0 / alpha) - 2)
    while 1 / (n + 1) > alpha:
        n += 1
    return n


def needs_for_confidence(alpha: float, confidence: float) -> int:
    """The fewest normals with 1 - (1 - alpha)^n >= confidence, and alpha on average: 299 for 1 % at 95 %."""
    n = max(needs_for_mean(alpha), math.floor(math.log1p(-confidence) / math.log1p(-alpha)) - 1)
    while -math.expm1(n * math.log1p(-alpha)) < confidence:
        n += 1
    return n


def smallest_confident_alpha(n: int, confidence: float) -> float:
    """The smallest alpha that n normals promise with the confidence: 1 - (1 - confidence)^(1 / n), or 1 / (n + 1)."""
    return max(-math.expm1(math.log1p(-confidence) / n), 1.0 / (n + 1))


def cross_bound(alpha: float, fold_sizes: Sequence[int]) -> float:
    """The upper bound of P(p <= alpha) for the cross-conformal p-value of a normal frame, near 2 * alpha.

    It is the smaller of two bounds for n normals in K folds. (1) 2 * (alpha * (n + 1) + K - 1) / (n + K): p is a
    weighted mean of the p-values of the folds. Such a mean is at most t with probability at most 2 t, for any
    dependence (Vovk & Wang 2020, Biometrika 107). (2) For equal folds, 2 * alpha + (1 - K / n) / (K + 1), which is
    2 * alpha for jackknife+ (Barber et al. 2021, theorems 1 and 4).
    """
    alpha = checks.rate("alpha", alpha)
    sizes = checks.listed("fold sizes", fold_sizes, "a list of numbers")
    K, n = len(sizes), int(checks.finite("fold sizes", sizes).sum())
    if K < 2 or min(sizes) < 1:
        raise ScoresError(f"fold sizes are {sizes}: expected at least 2 folds of at least 1 normal")
    bound = 2.0 * (alpha * (n + 1) + K - 1) / (n + K)
    if len(set(sizes)) == 1:
        bound = min(bound, 2.0 * alpha + (1.0 - K / n) / (K + 1))
    return min(1.0, bound)
