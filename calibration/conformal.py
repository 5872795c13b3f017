"""Conformal methods without a single held-out set: out-of-fold scores, a threshold per source, false discoveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration import checks
from calibration.checks import FloatArray
from calibration.errors import ScoresError
from calibration.threshold import Calibration, calibrate, checked_rates, fit


def fit_cross(
    scores_by_fold: Sequence[ArrayLike],
    alpha: float = 0.01,
    confidence: float = 0.95,
    *,
    unsure_alpha: float | None = None,
    tail: bool = False,
    subject: str = "",
) -> Calibration:
    """Thresholds if every normal both trains and calibrates, from K >= 2 folds of scores [n_k].

    `scores_by_fold[k]`: the scores that the model trained without fold k gives to the normals of fold k. The threshold
    is that of `fit` for all n scores together. It is meant for the final model, which was trained on every fold. For
    that model the promise is an estimate: its kind is "cross" (or "tail", "none"), and its interval and confidence
    treat the scores as independent. ScoresError, SettingsError.
    """
    folds = _folds(scores_by_fold)
    rates = checked_rates(alpha, confidence, unsure_alpha)
    pooled = np.sort(np.concatenate(folds))
    return calibrate(pooled, *rates, tail=tail, subject=subject, folds=tuple(f.size for f in folds))


def cross_p_values(scores_by_fold: Sequence[ArrayLike], fold_scores: ArrayLike) -> FloatArray:
    """Cross-conformal p-values (CV+; with one normal per fold, jackknife+), float64 [m].

    `fold_scores`: [m, K], the score of each new frame by each of the K fold models. p = (1 + c) / (n + 1). c is the
    number of calibration normals whose out-of-fold score is at least the new frame's score by the same fold model.
    P(p <= alpha) <= `cross_bound(alpha, fold sizes)` for a normal frame. ScoresError. Vovk (2015), Cross-conformal
    predictors; Barber, Candes, Ramdas & Tibshirani (2021), Annals of Statistics 49.
    """
    folds = _folds(scores_by_fold)
    new = checks.finite("fold scores", fold_scores)
    if new.ndim != 2 or new.shape[1] != len(folds):
        raise ScoresError(
            f"fold scores have shape {list(new.shape)}: expected [frames, {len(folds)}], one column per fold model"
        )
    count = np.ones(new.shape[0])
    for k, fold in enumerate(folds):
        count += fold.size - np.searchsorted(fold, new[:, k], side="left")
    return np.asarray(count / (1 + sum(f.size for f in folds)), dtype=np.float64)


def _folds(scores_by_fold: Sequence[ArrayLike]) -> list[FloatArray]:
    given = checks.listed("folds", scores_by_fold, "a list of arrays, the scores of each fold")
    folds = [checks.sample(f"fold {k}'s scores", f, least=1) for k, f in enumerate(given)]
    if len(folds) < 2:
        raise ScoresError(f"{len(folds)} fold given: at least 2 are needed; use fit for one held-out set")
    return folds


@dataclass(frozen=True, eq=False)
class Mondrian:
    """One calibration per source (camera, product). Its promise holds for each source alone (Vovk et al. 2005)."""

    by_source: Mapping[str, Calibration]

    def p_values(self, scores: ArrayLike, sources: Sequence[str]) -> FloatArray:
        """Conformal p-values, float64 [N], each from the normals of its own source. ScoresError."""
        s, groups = self._groups(scores, sources)
        out = np.empty(s.shape)
        for source, rows in groups.items():
            out[rows] = self.by_source[source].p_values(s[rows])
        return out

    def decide(self, scores: ArrayLike, sources: Sequence[str]) -> NDArray[np.str_]:
        """The verdicts "pass", "unsure", "reject", [N], each by the thresholds of its own source. ScoresError."""
        s, groups = self._groups(scores, sources)
        out = np.empty(s.shape, dtype="<U6")
        for source, rows in groups.items():
            out[rows] = self.by_source[source].decide(s[rows])
        return out

    def _groups(self, scores: ArrayLike, sources: Sequence[str]) -> tuple[FloatArray, dict[str, NDArray[np.intp]]]:
        s = checks.finite("scores", scores)
        groups = _rows(s, sources)
        unknown = sorted(set(groups) - set(self.by_source))
        if unknown:
            raise ScoresError(
                f"no calibration for source {unknown[0]!r}: known are {sorted(self.by_source)}; calibrate it first"
            )
        return s, groups


def fit_mondrian(
    scores: ArrayLike,
    sources: Sequence[str],
    alpha: float = 0.01,
    confidence: float = 0.95,
    *,
    unsure_alpha: float | None = None,
    tail: bool = False,
    subject: str = "",
) -> Mondrian:
    """`fit` for each source: `scores` [n] and `sources` (n names), at least 2 normals each. ScoresError."""
    s = checks.finite("normal scores", scores)
    fitted = {}
    for source, rows in _rows(s, sources).items():
        try:
            fitted[source] = fit(s[rows], alpha, confidence, unsure_alpha=unsure_alpha, tail=tail, subject=subject)
        except ScoresError as error:
            raise ScoresError(f"source {source!r}: {error}") from None
    if not fitted:
        raise ScoresError("normal scores hold 0: at least 2 of each source are needed")
    return Mondrian(MappingProxyType(fitted))


def _rows(scores: FloatArray, sources: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    given = checks.listed("sources", sources, "a list of names, one per score")
    if scores.ndim != 1 or len(given) != scores.size:
        raise ScoresError(
            f"scores of shape {list(scores.shape)} and {len(given)} sources: expected one name per score, shape [n]"
        )
    if wrong := [source for source in given if not isinstance(source, str)]:
        raise ScoresError(f"a source is {wrong[0]!r:.80}: expected its name")
    names = np.asarray(given, dtype=np.str_)
    return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}


def benjamini_hochberg(p_values: ArrayLike, q: float = 0.05) -> NDArray[np.bool_]:
    """The frames of a batch to reject, so that on average at most the share q of them is normal; bool [N].

    Rejects the k smallest p-values for the largest k with p_(k) <= q * k / N (Benjamini & Hochberg 1995). This is
    valid for conformal p-values from one shared calibration set, because their dependence is positive (Bates, Candes,
    Lei, Romano & Sesia 2023, Annals of Statistics 51). ScoresError, SettingsError.
    """
    q = checks.rate("q (the false discovery rate)", q)
    p = checks.finite("p-values", p_values)
    if p.ndim != 1:
        raise ScoresError(f"p-values have shape {list(p.shape)}: expected [N]")
    if p.size and (p.min() < 0.0 or p.max() > 1.0):
        raise ScoresError(f"p-values run from {p.min():g} to {p.max():g}: expected 0 to 1")
    ordered = np.sort(p)
    holds = np.flatnonzero(ordered <= q * np.arange(1, p.size + 1) / max(1, p.size))
    cut = ordered[holds[-1]] if holds.size else -1.0
    return np.asarray(p <= cut, dtype=np.bool_)
