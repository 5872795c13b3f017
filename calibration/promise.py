"""The promise of a threshold: its false-reject rate, in numbers and in one line for an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration import rank
from calibration.beta import beta_quantile
from calibration.tail import TailFit

KINDS = ("confident", "mean", "none", "tail", "cross")


@dataclass(frozen=True)
class Promise:
    """The false-reject rate (share of normal frames rejected) that a threshold promises.

    `kind`: "confident" (alpha holds with the confidence), "mean" (alpha holds on average over calibration sets), "none"
    (too few normals: nothing is rejected), "tail" (a fitted model), "cross" (an out-of-fold estimate). `exceedances`:
    k, the number of calibration scores that may be strictly above the threshold (fewer with ties). `mean_rate`: the
    expected rate, (k + 1) / (n + 1). `interval`: contains the true rate with the confidence (equal tails of
    Beta(k + 1, n - k)). It starts at 0 if scores tie at the threshold. `rate_bound`: the rate is at most this with the
    confidence (one-sided). `attained_confidence`: the confidence with which the rate is at most alpha. `needs_mean`,
    `needs_confident`: the fewest normals for alpha on average, and with the confidence. `smallest_alpha`,
    `smallest_confident_alpha`: the smallest alpha that n normals can promise, on average and with the confidence. Rates
    are in [0, 1].
    """

    kind: str
    alpha: float
    confidence: float
    n: int
    exceedances: int
    mean_rate: float
    interval: tuple[float, float]
    rate_bound: float
    attained_confidence: float
    needs_mean: int
    needs_confident: int
    smallest_alpha: float
    smallest_confident_alpha: float
    sentence: str


def percent(rate: float) -> str:
    """A rate as text: 0.01 is "1%"."""
    return f"{100.0 * rate:.3g}%" if rate <= 0.99 else f"{100.0 * rate:.6g}%"


def conformal_promise(
    n: int,
    k: int | None,
    alpha: float,
    confidence: float,
    *,
    tied: bool = False,
    constant: bool | np.bool_ = False,
) -> Promise:
    """The promise of the threshold with `k` of `n` exceedances (rank.py). k None: an infinite threshold."""
    if k is None:
        rates = (0.0, (0.0, 0.0), 0.0, 1.0)
        kind = "none"
    else:
        side = (1.0 - confidence) / 2.0
        low = 0.0 if tied else beta_quantile(side, k + 1, n - k)
        rates = (
            (k + 1) / (n + 1),
            (low, beta_quantile(1.0 - side, k + 1, n - k)),
            beta_quantile(confidence, k + 1, n - k),
            rank.attained_confidence(n, k, alpha),
        )
        kind = "confident" if rates[3] >= confidence else "mean"
    promise = Promise(
        kind=kind,
        alpha=alpha,
        confidence=confidence,
        n=n,
        exceedances=k or 0,
        mean_rate=rates[0],
        interval=rates[1],
        rate_bound=rates[2],
        attained_confidence=rates[3],
        needs_mean=rank.needs_for_mean(alpha),
        needs_confident=rank.needs_for_confidence(alpha, confidence),
        smallest_alpha=1.0 / (n + 1),
        smallest_confident_alpha=rank.smallest_confident_alpha(n, confidence),
        sentence="",
    )
    sentence = _sentence(promise)
    if constant:
        sentence += "; all calibration scores are equal, so check the detector"
    return replace(promise, sentence=sentence)


def cross_promise(promise: Promise, folds: Sequence[int]) -> Promise:
    """The promise of the same threshold for out-of-fold scores. It is an estimate, and its sentence says so."""
    origin = f"{promise.n} normals in {len(folds)} folds, each scored by what was learned without it"
    if promise.kind in ("none", "tail"):
        return replace(promise, sentence=f"{promise.sentence} ({origin})")
    alpha, mean = percent(promise.alpha), percent(promise.mean_rate)
    if promise.kind == "confident":
        rates = f"at most {alpha} of normal frames with {percent(promise.confidence)} confidence, {mean} expected"
    else:
        sure = percent(promise.attained_confidence)
        rates = f"{mean} of normal frames on average, at most {alpha} with {sure} confidence"
    sentence = (
        f"rejects {rates}: an out-of-fold estimate, not a guarantee ({origin}); a guarantee of {alpha} at "
        f"{percent(promise.confidence)} needs {promise.needs_confident} normals held out"
    )
    return replace(promise, kind="cross", sentence=sentence)


def tail_promise(fit: TailFit, confidence: float) -> Promise:
    """The promise of a fitted tail. All its rates come from the bootstrap of the model."""
    side = (1.0 - confidence) / 2.0
    low, high, bound = (float(q) for q in np.quantile(fit.rates, [side, 1.0 - side, confidence]))
    needs = (rank.needs_for_mean(fit.alpha), rank.needs_for_confidence(fit.alpha, confidence))
    badly = "; it fits badly" if fit.fit_p < 0.05 else ""
    return Promise(
        kind="tail",
        alpha=fit.alpha,
        confidence=confidence,
        n=fit.n,
        exceedances=0,
        mean_rate=float(fit.rates.mean()),
        interval=(low, high),
        rate_bound=bound,
        attained_confidence=float((fit.rates <= fit.alpha).mean()),
        needs_mean=needs[0],
        needs_confident=needs[1],
        smallest_alpha=1.0 / (fit.n + 1),
        smallest_confident_alpha=rank.smallest_confident_alpha(fit.n, confidence),
        sentence=(
            f"a model, not a guarantee: a Pareto tail through the {fit.exceedances.size} largest "
            f"of {fit.n} normals aims at {percent(fit.alpha)} of normal frames rejected; by its own "
            f"bootstrap {percent(float(fit.rates.mean()))} on average, {percent(low)} to {percent(high)} "
            f"at {percent(confidence)} (fit p = {fit.fit_p:.2g}{badly}); a promise needs {needs[0]} normals "
            f"on average, {needs[1]} at {percent(confidence)}"
        ),
    )


def _sentence(p: Promise) -> str:
    alpha, sure = percent(p.alpha), percent(p.confidence)
    if p.kind == "confident":
        return (
            f"rejects at most {alpha} of normal frames with {sure} confidence: {p.n} normals, "
            f"{p.exceedances} of them above the threshold, {percent(p.mean_rate)} expected"
        )
    if p.kind == "mean":
        return (
            f"needs {p.needs_confident} normals for {alpha} at {sure}; you have {p.n}: "
            f"{percent(p.mean_rate)} of normal frames rejected on average, at most {alpha} with "
            f"{percent(p.attained_confidence)} confidence, at most {percent(p.rate_bound)} with {sure}"
        )
    return (
        f"needs {p.needs_mean} normals for {alpha} on average and {p.needs_confident} for {alpha} at {sure}; "
        f"you have {p.n}: nothing is rejected; they can promise {percent(p.smallest_alpha)} on average, "
        f"{percent(p.smallest_confident_alpha)} at {sure}"
    )
