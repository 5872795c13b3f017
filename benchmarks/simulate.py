"""Check by simulation that the promises hold, and write the tables: python -m benchmarks.simulate."""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.checks import FloatArray
from calibration.errors import CalibrationError, SettingsError
from calibration.martingale import Martingales
from calibration.promise import percent
from calibration.threshold import fit

SIZES = (50, 100, 300, 1000)
ALPHAS = (0.05, 0.01)
CONFIDENCE = 0.95
BOUND = 0.01


def _normal_above(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2.0))


@dataclass(frozen=True)
class Law:
    """A distribution of normal scores. `draw(rng, shape)` samples it. `above(x)` is its exact P(S > x)."""

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], FloatArray]
    above: Callable[[float], float]


LAWS = (
    Law("normal", lambda rng, shape: rng.normal(size=shape), _normal_above),
    Law("lognormal", lambda rng, shape: np.exp(rng.normal(size=shape)), lambda x: _normal_above(math.log(x))),
    Law("heavy (Cauchy)", lambda rng, shape: rng.standard_cauchy(shape), lambda x: math.atan2(1.0, x) / math.pi),
    Law(
        "ties (rounded to 0.5)",
        lambda rng, shape: np.floor(rng.normal(size=shape) * 2.0 + 0.5) / 2.0,
        lambda x: _normal_above(x + 0.25),
    ),
    Law(
        "ties (84% zero)",
        lambda rng, shape: np.maximum(rng.normal(size=shape) - 1.0, 0.0),
        lambda x: _normal_above(x + 1.0),
    ),
)


@dataclass(frozen=True)
class Kept:
    """How well a promise held: each share over the repetitions, and the promised value."""

    law: str
    n: int
    alpha: float
    kind: str
    mean_rate: float
    standard_error: float
    under_alpha: float
    promised_under_alpha: float
    under_bound: float
    repetitions: int

    @property
    def holds(self) -> bool:
        """Whether mean rate, confidence at alpha, and rate bound hold within three Monte-Carlo standard errors."""
        return (
            self.mean_rate <= self.alpha + 3.0 * self.standard_error
            and _at_least(self.under_alpha, self.promised_under_alpha, self.repetitions)
            and _at_least(self.under_bound, CONFIDENCE, self.repetitions)
        )


def _at_least(share: float, promised: float, repetitions: int) -> bool:
    return share >= promised - 3.0 * math.sqrt(promised * (1.0 - promised) / repetitions)


def promise_kept(law: Law, n: int, alpha: float, repetitions: int, seed: int) -> Kept:
    """Fit `repetitions` calibrations of n scores each; the true rate of each threshold is exact, from the law."""
    rng = np.random.default_rng([seed, n, round(1e6 * alpha), *law.name.encode()])
    rates = np.empty(repetitions)
    for i in range(repetitions):
        fitted = fit(law.draw(rng, (1, n))[0], alpha, CONFIDENCE)
        rates[i] = 0.0 if math.isinf(fitted.threshold) else law.above(fitted.threshold)
    promise = fitted.promise
    return Kept(
        law=law.name,
        n=n,
        alpha=alpha,
        kind=promise.kind,
        mean_rate=float(rates.mean()),
        standard_error=float(rates.std() / math.sqrt(repetitions)),
        under_alpha=float((rates <= alpha).mean()),
        promised_under_alpha=promise.attained_confidence,
        under_bound=float((rates <= promise.rate_bound + 1e-12).mean()),
        repetitions=repetitions,
    )


@dataclass(frozen=True)
class TailKept:
    """How well a modelled tail held: mean true rate, mean claimed rate, share of intervals with the true rate."""

    mean_rate: float
    claimed_rate: float
    inside: float


def tail_kept(law: Law, n: int, alpha: float, repetitions: int, seed: int) -> TailKept:
    """Fit `repetitions` modelled tails to n scores each, for an alpha that conformal cannot promise."""
    rng = np.random.default_rng([seed, n, round(1e6 * alpha), *law.name.encode()])
    rates, claimed, inside = np.empty((3, repetitions))
    for i in range(repetitions):
        fitted = fit(law.draw(rng, (1, n))[0], alpha, CONFIDENCE, tail=True)
        low, high = fitted.promise.interval
        rates[i] = law.above(fitted.threshold)
        claimed[i] = fitted.promise.mean_rate
        inside[i] = low <= rates[i] <= high
    return TailKept(float(rates.mean()), float(claimed.mean()), float(inside.mean()))


def false_alarms(n: int, statistics: int, streams: int, frames: int, seed: int, *, fixed: bool = False) -> int:
    """How many of `streams` streams of unchanged values ever alarm at BOUND, split over the statistics.

    `fixed`: rank only in the calibration set. This looks simpler, but exceeds the bound.
    """
    rng = np.random.default_rng([seed, n, statistics, fixed])
    rows = streams * statistics
    values = rng.exponential(size=(rows, n))
    m = Martingales(list(values[:, : n // 3]), list(values[:, n // 3 :]))
    bag = m.counts.copy()
    high = np.full(rows, -np.inf)
    for _ in range(frames):
        high = np.maximum(high, m.bet(m.rank(rng.exponential(size=rows), rng.random(rows))))
        if fixed:
            m.counts[:] = bag
    return int((high.reshape(streams, statistics).max(axis=1) >= math.log(statistics / BOUND)).sum())


def delays(shift: float, change: int, streams: int, seed: int, *, n: int = 300, patience: int = 1000) -> FloatArray:
    """Frames until the alarm for one of six statistics, which shifts by `shift` standard deviations at `change`.

    inf if there is no alarm within `patience` frames. float64 [streams].
    """
    rng = np.random.default_rng([seed, change, round(100 * shift)])
    values = rng.normal(size=(streams, n))
    m = Martingales(list(values[:, : n // 3]), list(values[:, n // 3 :]))
    found = np.full(streams, np.inf)
    for t in range(change + patience):
        level = shift if t >= change else 0.0
        capital = m.bet(m.rank(rng.normal(level, 1.0, size=streams), rng.random(streams)))
        new = (capital >= math.log(6.0 / BOUND)) & np.isinf(found)
        found[new] = t + 1 - change
    return found


def promises_table(repetitions: int, seed: int) -> tuple[str, bool]:
    """The table of thresholds in Markdown, and whether every promise held."""
    rows = [promise_kept(law, n, alpha, repetitions, seed) for law in LAWS for alpha in ALPHAS for n in SIZES]
    lines = [
        "| scores | alpha | n | promise | mean rate (s.e.) | at most alpha | promised | at most bound | holds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.law} | {percent(r.alpha)} | {r.n} | {r.kind} | {100 * r.mean_rate:.3f}% ({100 * r.standard_error:.3f}) "
        f"| {100 * r.under_alpha:.1f}% | {100 * r.promised_under_alpha:.1f}% | {100 * r.under_bound:.1f}% "
        f"| {'yes' if r.holds else 'NO'} |"
        for r in rows
    ]
    return "\n".join(lines), all(r.holds for r in rows)


def tail_table(repetitions: int, seed: int) -> tuple[str, bool]:
    """The table of modelled tails in Markdown, and True: a model promises nothing, so it cannot fail."""
    lines = ["| scores | alpha | n | mean rate | claimed | in its interval |", "|---|---|---|---|---|---|"]
    for law in LAWS[:3]:
        for alpha, n in ((0.01, 50), (0.01, 80), (0.001, 300)):
            kept = tail_kept(law, n, alpha, repetitions, seed)
            lines.append(
                f"| {law.name} | {percent(alpha)} | {n} | {100 * kept.mean_rate:.3f}% "
                f"| {100 * kept.claimed_rate:.3f}% | {100 * kept.inside:.1f}% |"
            )
    return "\n".join(lines), True


def drift_table(streams: int, frames: int, seed: int) -> tuple[str, bool]:
    """The table of false alarms and of delays in Markdown, and whether the bound held."""
    cases = [(300, 1, False), (50, 1, False), (300, 6, False), (300, 1, True)]
    counts = [false_alarms(n, k, streams, frames, seed, fixed=fixed) for n, k, fixed in cases]
    allowed = BOUND * streams + 3.0 * math.sqrt(BOUND * (1.0 - BOUND) * streams)
    lines = [
        f"| ranks | normals | statistics | alarms in {streams} unchanged streams of {frames} frames | bound |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {'fixed set (not used)' if fixed else 'growing bag'} | {n} | {k} | {count} | {BOUND * streams:g} |"
        for (n, k, fixed), count in zip(cases, counts, strict=True)
    ]
    lines += ["", "| shift | at frame | median delay | 9 of 10 within | found in 1,000 |", "|---|---|---|---|---|"]
    for shift in (0.5, 1.0, 2.0):
        for change in (500, 5000):
            d = np.sort(delays(shift, change, min(200, streams), seed))
            ninth = d[int(0.9 * d.size)]
            lines.append(
                f"| {shift:g} s.d. | {change} | {d[d.size // 2]:g} | {ninth:g} | {100 * np.isfinite(d).mean():.0f}% |"
            )
    return "\n".join(lines), all(c <= allowed for (_, _, fixed), c in zip(cases, counts, strict=True) if not fixed)


def write_between(path: Path, name: str, text: str) -> None:
    """Replace the text between `<!-- NAME -->` and `<!-- /NAME -->` in a file. SettingsError if they are missing."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    try:
        page = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    if page.count(start) != 1 or page.count(end) != 1 or page.index(start) > page.index(end):
        raise SettingsError(f"{path}: expected the lines {start} and {end}, once each")
    before, rest = page.split(start)
    path.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def written_by(command: str, seconds: float) -> str:
    """The line under a table: the command, its versions, its machine and its time."""
    return (
        f"Written by `{command}` (numpy {np.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {seconds:.0f} s)."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the simulations. Returns 0 if every promise held, 1 if one did not, 2 for a wrong setting."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10_000, help="calibrations per law, n and alpha")
    parser.add_argument("--streams", type=int, default=1000, help="unchanged streams per case")
    parser.add_argument("--frames", type=int, default=10_000, help="frames per unchanged stream")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables between FILE's markers")
    options = parser.parse_args(arguments)
    command = " ".join(["python -m benchmarks.simulate", *(sys.argv[1:] if arguments is None else arguments)])
    good = True
    try:
        if min(options.repetitions, options.streams, options.frames) < 2 or options.seed < 0:
            raise SettingsError("repetitions, streams and frames are at least 2, the seed at least 0")
        tables: dict[str, Callable[[], tuple[str, bool]]] = {
            "promises": lambda: promises_table(options.repetitions, options.seed),
            "tail": lambda: tail_table(max(2, options.repetitions // 20), options.seed),
            "drift": lambda: drift_table(options.streams, options.frames, options.seed),
        }
        for name, table in tables.items():
            start = time.perf_counter()
            text, holds = table()
            good = good and holds
            text = f"{text}\n\n{written_by(command, time.perf_counter() - start)}"
            if options.write:
                write_between(options.write, name, text)
            sys.stdout.write(f"{text}\n\n")
    except CalibrationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
