"""Thresholds for rates below 1/n: a generalised Pareto tail above a high order statistic. A model, not a guarantee.

Peaks over threshold (Pickands 1975): with m of n normal scores above u, P(S > u + y) is modelled as
zeta * (1 + xi * y / sigma)^(-1 / xi), with zeta = (m + 1) / (n + 1). xi and sigma come from probability-weighted
moments (Hosking & Wallis 1987), which are reliable for a few dozen exceedances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibration import checks
from calibration.checks import FloatArray
from calibration.errors import ScoresError

FEWEST = 10  # exceedances
RESAMPLES = 999
_SHAPES = (-0.5, 0.9)  # the range of xi in which the moments exist and the estimate is used


@dataclass(frozen=True, eq=False)
class TailFit:
    """A fitted tail, and how well it fits.

    `exceedances`: float64 [m], ascending, the excess of the scores over `u`. `n`: the number of all scores. `xi`,
    `sigma`: shape and scale. `threshold`: the score with the rate `alpha` in the model. For alpha below 1/(n + 1) it is
    never below the largest score. `threshold_interval`: its interval at the confidence, by a seeded parametric
    bootstrap. `rates`: float64 [999], ascending, the true rate of the same procedure in each resample, if the fitted
    model is the truth. `anderson_darling`: A^2 of the exceedances. `fit_p`: the share of samples from the model that
    fit worse. A small value means that the model does not hold.
    """

    u: float
    n: int
    xi: float
    sigma: float
    exceedances: FloatArray
    alpha: float
    threshold: float
    threshold_interval: tuple[float, float]
    rates: FloatArray
    anderson_darling: float
    fit_p: float

    def survival(self, scores: ArrayLike) -> FloatArray:
        """The modelled P(S > s), of the scores' shape. Scores below u give the value at u."""
        y = np.maximum(checks.finite("scores", scores) - self.u, 0.0) / self.sigma
        return _zeta(self.exceedances.size, self.n) * _survival(y, np.asarray(self.xi))

    def quantiles(self) -> tuple[FloatArray, FloatArray]:
        """The points of the quantile-quantile plot: modelled and observed scores above u, float64 [m] each."""
        m = self.exceedances.size
        upper = 1.0 - (np.arange(m) + 0.5) / m
        return self.u + self.sigma * _quantile(upper, np.asarray(self.xi)), self.u + self.exceedances


def fit_tail(scores: ArrayLike, alpha: float = 0.001, confidence: float = 0.95, *, seed: int = 0) -> TailFit:
    """Fit the tail of normal scores [n], n >= 20, and take the threshold for `alpha` from it.

    The tail holds the 2 * sqrt(n) largest scores, at least 10 and at most half of all. ScoresError for too few scores,
    or if ties leave fewer than 10 above u. SettingsError for a rate outside (0, 1).
    """
    alpha = checks.rate("alpha", alpha)
    confidence = checks.rate("confidence", confidence)
    s = checks.sample("normal scores", scores, least=2 * FEWEST)
    n = int(s.size)
    u = float(s[n - 1 - min(max(FEWEST, math.ceil(2.0 * math.sqrt(n))), n // 2)])
    y = s[s > u] - u
    m = int(y.size)
    if m < FEWEST:
        raise ScoresError(
            f"only {m} normal scores lie above {u:g} (ties): a tail needs {FEWEST}; add normals or use tail=False"
        )
    zeta = _zeta(m, n)
    if alpha >= zeta:
        raise ScoresError(f"alpha {alpha:g} is not in the tail of {n} normals ({zeta:.3g}): use tail=False")
    xi, sigma = _moments(y)
    reach = _reach(y, xi, sigma, alpha, n)
    rng = np.random.default_rng(seed)
    again = np.sort(_quantile(rng.random((RESAMPLES, m)), xi), axis=1)
    xi_again, sigma_again = _moments(again)
    reach_again = _reach(again, xi_again, sigma_again, alpha, n)
    rates = np.sort(rng.beta(m + 1, n - m, RESAMPLES) * _survival(reach_again, xi))
    distance = _anderson_darling(y, xi, sigma)
    distance_again = _anderson_darling(again, xi_again, sigma_again)
    side = (1.0 - confidence) / 2.0
    low, high = np.quantile(u + float(sigma) * reach_again, [side, 1.0 - side])
    return TailFit(
        u=u,
        n=n,
        xi=float(xi),
        sigma=float(sigma),
        exceedances=y,
        alpha=alpha,
        threshold=u + float(reach),
        threshold_interval=(float(low), float(high)),
        rates=rates,
        anderson_darling=float(distance),
        fit_p=float((1 + (distance_again >= distance).sum()) / (RESAMPLES + 1)),
    )


def _zeta(m: int, n: int) -> float:
    return (m + 1) / (n + 1)


def _moments(y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """xi and sigma of excesses [..., m] in ascending order, by weighted moments. xi is clipped to `_SHAPES`."""
    m = y.shape[-1]
    a0 = y.mean(axis=-1)
    a1 = (y * (m - 1 - np.arange(m)) / (m - 1)).mean(axis=-1)
    xi = np.clip(2.0 - a0 / (a0 - 2.0 * a1), *_SHAPES)
    return xi, a0 * (1.0 - xi)


def _quantile(upper: FloatArray | float, xi: FloatArray) -> FloatArray:
    """The excess, in units of sigma, that is exceeded with probability `upper`."""
    safe = np.where(np.abs(xi) < 1e-9, 1e-9, xi)
    return np.asarray(np.expm1(-safe * np.log(upper)) / safe, dtype=np.float64)


def _survival(y: FloatArray, xi: FloatArray) -> FloatArray:
    """P(Y > y) for an excess y in units of sigma."""
    safe = np.where(np.abs(xi) < 1e-9, 1e-9, xi)
    inside = np.maximum(1.0 + safe * y, 1e-300)
    return np.asarray(np.exp(-np.log(inside) / safe), dtype=np.float64)


def _reach(y: FloatArray, xi: FloatArray, sigma: FloatArray, alpha: float, n: int) -> FloatArray:
    """The excess of the threshold over u: the model's quantile. Below 1/(n + 1), at least the largest excess."""
    modelled = sigma * _quantile(alpha / _zeta(y.shape[-1], n), xi)
    floor = y[..., -1] if alpha * (n + 1) < 1.0 else 0.0
    return np.asarray(np.maximum(modelled, floor), dtype=np.float64)


def _anderson_darling(y: FloatArray, xi: FloatArray, sigma: FloatArray) -> FloatArray:
    """A^2 of excesses [..., m] in ascending order for the fitted law (Choulakian & Stephens 2001)."""
    m = y.shape[-1]
    over = np.clip(_survival(y / sigma[..., None], xi[..., None]), 1e-12, 1.0 - 1e-12)
    weights = (2.0 * np.arange(m) + 1.0) / m
    return np.asarray(-m - (weights * (np.log1p(-over) + np.log(over[..., ::-1]))).sum(-1), dtype=np.float64)
