"""Conformal test martingales for many statistics at once: capital that bets against the hypothesis of no change.

Each new value is ranked in a bag of all values before it, including those of the calibration. While the values are
exchangeable, the smoothed ranks are independent and uniform (Vovk, Gammerman & Shafer 2005), for a stream of any length
and for any number of calibration normals. Ranks in a fixed calibration set are not independent. So the capital is a
martingale that starts at 1. The probability that it ever reaches 1 / delta is at most delta (Ville 1939).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.checks import FloatArray

BETS = ("rose", "fell", "spread grew", "spread shrank")
_STAKES = (0.3, 0.9)
_PATIENCE = 300.0  # frames; the savings are 1 / (1 + log(1 + t / 300))


class Martingales:
    """M statistics, each with its bag and its capital.

    Values are counted in bins, so that the memory is constant. `edges`: float64 [M, a]. They must come from values that
    are not in the bag; otherwise the binned ranks are not exchangeable. `counts`: float64 [M, a + 1], the bag.
    `log_capital`: float64 [M, 4, 2], the stakes on each of BETS at two strengths. `time`: the number of values since
    the start.
    """

    def __init__(self, edges: Sequence[FloatArray], bags: Sequence[FloatArray]) -> None:
        """`edges[j]` [a_j] and `bags[j]` [b_j] hold disjoint calibration values of statistic j, in any order."""
        widest = max(len(e) for e in edges)
        self.edges = np.full((len(edges), widest), np.inf)
        self.counts = np.zeros((len(edges), widest + 1))
        for j, (e, bag) in enumerate(zip(edges, bags, strict=True)):
            self.edges[j, : len(e)] = np.sort(e)
            self.counts[j] = np.bincount(np.searchsorted(self.edges[j], bag), minlength=widest + 1)
        self.log_capital = np.full((len(edges), len(BETS), len(_STAKES)), -np.inf)
        self.time = 0

    def _bin(self, values: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
        return np.asarray((self.edges < values[:, None]).sum(axis=1), dtype=np.intp)

    def rank(self, values: FloatArray, uniform: FloatArray) -> FloatArray:
        """Smoothed conformal p-values [M] of the next values [M]. The values are added to the bag.

        p = (#{bag > v} + U * (#{bag = v} + 1)) / (#bag + 1), on bins. U is `uniform` [M], which breaks ties.
        """
        bins, rows = self._bin(values), np.arange(len(values))
        above = (self.counts * (np.arange(self.counts.shape[1]) > bins[:, None])).sum(axis=1)
        p = (above + uniform * (self.counts[rows, bins] + 1.0)) / (self.counts.sum(axis=1) + 1.0)
        self.counts[rows, bins] += 1.0
        return np.asarray(p, dtype=np.float64)

    def bet(self, p: FloatArray) -> FloatArray:
        """Bet on p-values [M]. Returns the log of the whole capital [M] afterwards, including savings.

        A bet multiplies its stake by 1 + kappa * u, where u has mean 0 under uniform p (the simple jumper's bets of
        Vovk et al. 2021). Each step stakes a small part of the savings on every bet, so that there is still capital for
        a late change. This is a mixture over the time of the change.
        """
        level = 2.0 * p - 1.0
        spread = 2.0 * np.abs(level) - 1.0
        signs = np.stack([-level, level, spread, -spread], axis=1)
        saved, left = _savings(self.time), _savings(self.time + 1)
        stake = np.log((saved - left) / self.log_capital[0].size)
        self.log_capital = np.logaddexp(self.log_capital, stake)
        self.log_capital += np.log1p(signs[:, :, None] * np.array(_STAKES))
        self.time += 1
        flat = self.log_capital.reshape(len(p), -1)
        top = flat.max(axis=1)
        staked = top + np.log(np.exp(flat - top[:, None]).sum(axis=1))
        return np.asarray(np.logaddexp(staked, np.log(left)), dtype=np.float64)

    def best_bet(self, row: int) -> str:
        """How statistic `row` changed: the bet with the most capital. Bets on the level come first if one exceeds 1.

        A large change of the level also widens the spread. A wider spread alone gives the bets on the level little.
        """
        held = self.log_capital[row].max(axis=1)
        return BETS[int(held[:2].argmax() if held[:2].max() > 0.0 else held.argmax())]


def _savings(time: int) -> float:
    return float(1.0 / (1.0 + np.log1p(time / _PATIENCE)))
