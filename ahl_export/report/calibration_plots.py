"""Plots of a calibration: scores and levels with their intervals, the promise over alpha, the drift alarm over time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ahl_export.errors import ExportError
from ahl_export.report.plots import DEFECT, INK, NORMAL, SOFT, STYLE
from ahl_runtime.bundle.bundle import Bundle
from calibration import Calibration, Drift, DriftReport
from calibration.rank import attained_confidence

_WIDE = (6.4, 3.7)  # inches
_LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1)), (0, (1, 3)))

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DriftStream:
    """The alarm's report after each frame of a stream. The stream has `change` from frame `changed_at` (from 0)."""

    reports: tuple[DriftReport, ...]
    changed_at: int
    change: str


def level_interval(fitted: Calibration, alpha: float) -> tuple[float, float]:
    """Interval of the level that rejects exactly `alpha` of normals, with the calibration's confidence.

    Order statistics: that level is at most the (n - k)-th score with probability P(Beta(k + 1, n - k) <= alpha).
    Ends are infinite if n is too small to bound them.
    """
    n, side = fitted.n, (1.0 - fitted.confidence) / 2.0
    below = np.array([attained_confidence(n, k, alpha) for k in range(n)])  # falls with k
    low, high = np.flatnonzero(below <= side), np.flatnonzero(below >= 1.0 - side)
    return (
        float(fitted.scores[n - 1 - low[0]]) if low.size else -np.inf,
        float(fitted.scores[n - 1 - high[-1]]) if high.size else np.inf,
    )


def levels(fitted: Calibration) -> Figure:
    """Histogram of the calibration normals, both levels, and the interval of the level that keeps each rate exactly."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_WIDE, layout="constrained")
        axes = figure.subplots()
        finite = [x for x in (fitted.unsure_threshold, fitted.threshold) if np.isfinite(x)]
        low, high = float(fitted.scores[0]), max([float(fitted.scores[-1]), *finite])
        margin = 0.06 * (high - low) or 1.0
        bins: list[float] | int = np.linspace(low, high, 40).tolist() if high > low else 3
        counts, _, _ = axes.hist(fitted.scores, bins, color=NORMAL, alpha=0.6)
        top = float(np.max(counts))
        sure = f"{100 * fitted.confidence:.3g}%"
        marked = (
            ("unsure", fitted.unsure_threshold, fitted.unsure_alpha, "--", 1.16),
            ("reject", fitted.threshold, fitted.alpha, "-", 1.36),
        )
        for name, level, alpha, line, height in marked:
            start, end = level_interval(fitted, alpha)
            shown = (max(start, low - margin), min(end, high + margin))
            axes.plot(shown, [height * top] * 2, color=DEFECT, linewidth=5, alpha=0.4, solid_capstyle="butt")
            if np.isfinite(level):
                axes.plot([level] * 2, [0, height * top], color=INK, linestyle=line, linewidth=1.4)
            where = f"{level:.4g}" if np.isfinite(level) else "never"
            text = f"{name} above {where}; band: where exactly {100 * alpha:.3g}% lie above ({sure})"
            axes.annotate(text, (low, height * top), (0, 6), textcoords="offset points", fontsize=8.5)
        axes.set(xlabel="score", ylabel=f"calibration normals, of {fitted.n}")
        axes.set(xlim=(low - margin, high + margin), ylim=(0, 1.56 * top))
        return figure


def reliability(fitted: Calibration, tested: Scores | None = None) -> Figure:
    """The false-reject rate over alpha: as promised and, if given, as measured on `tested` normals [m]."""
    alphas = np.geomspace(max(1e-3, 0.3 / (fitted.n + 1)), 0.3, 80)
    at = [fitted.at(float(alpha)) for alpha in alphas]
    some = np.array([np.isfinite(c.threshold) for c in at])
    scale, floor = 100.0, 10.0 * alphas[0]  # percent; rates below a tenth of the least alpha are drawn there
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_WIDE, layout="constrained")
        axes = figure.subplots()
        axes.plot(scale * alphas, scale * alphas, color=SOFT, linewidth=0.9, linestyle=":", label="alpha, the limit")
        bounds = np.array([c.promise.interval for c in at])
        sure = f"{100 * fitted.confidence:.3g}%"
        kept = scale * alphas[some]
        least_rate, greatest_rate = np.maximum(scale * bounds[some].T, floor)
        axes.fill_between(
            kept,
            least_rate,
            greatest_rate,
            step="post",
            color=NORMAL,
            alpha=0.25,
            linewidth=0,
            label=f"true rate, {sure}",
        )
        mean = scale * np.array([c.promise.mean_rate for c in at])[some]
        axes.plot(kept, mean, color=NORMAL, drawstyle="steps-post", linewidth=1.6, label="expected")
        if tested is not None and tested.size:
            rates = scale * np.array([(tested > c.threshold).mean() for c in at])[some]
            label = f"on {tested.size} test normals"
            axes.plot(kept, np.maximum(rates, floor), color=DEFECT, drawstyle="steps-post", linewidth=1.6, label=label)
        if not some.all():
            least = scale * alphas[some][0] if some.any() else axes.get_xlim()[1]
            axes.axvspan(scale * alphas[0], least, color=SOFT, alpha=0.12, linewidth=0, label="too few normals")
        axes.axvline(scale * fitted.alpha, color=INK, linewidth=0.9, linestyle="--", label="alpha chosen")
        axes.set(xscale="log", yscale="log", xlabel="alpha, %", ylabel="normals rejected, %")
        axes.set(xlim=(scale * alphas[0], scale * alphas[-1]), ylim=(floor, 100))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend(frameon=False, loc="upper left")
        return figure


def martingale(stream: DriftStream) -> Figure:
    """Each statistic's capital over the frames of a stream, on a log scale, with the alarm's limit and time."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_WIDE, layout="constrained")
        axes = figure.subplots()
        frames = np.arange(1, len(stream.reports) + 1)
        limit = stream.reports[0].limit
        ceiling = 2.5 * limit
        for k, name in enumerate(stream.reports[0].evidence):
            capital = np.array([r.evidence[name] for r in stream.reports])
            colour = DEFECT if capital.max() >= limit else NORMAL
            shown = np.minimum(capital, ceiling)
            axes.plot(frames, shown, color=colour, linestyle=_LINES[k % len(_LINES)], linewidth=1.3, label=name)
        axes.axhline(limit, color=INK, linewidth=1, linestyle="--")
        axes.annotate("alarm", (1, limit), (2, 4), textcoords="offset points", fontsize=9)
        if stream.changed_at < len(frames):
            axes.axvline(stream.changed_at + 1, color=SOFT, linewidth=1, linestyle=":")
        axes.set_title(_title(stream), fontsize=10, loc="left")
        axes.set(xlabel="frame", ylabel="evidence of change, powers of 10", ylim=(None, 1.05 * ceiling))
        axes.set_xlim(1, len(frames))
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        return figure


def _title(stream: DriftStream) -> str:
    """What changed, when, and how many frames later the alarm came."""
    if stream.changed_at >= len(stream.reports):
        return stream.change
    alarmed = next((i for i, r in enumerate(stream.reports) if r.alarm), None)
    if alarmed is None:
        found = "no alarm"
    elif alarmed < stream.changed_at:
        found = f"false alarm before it, at frame {alarmed + 1}"
    else:
        found = f"alarm {alarmed - stream.changed_at + 1} frames later"
    return f"{stream.change} from frame {stream.changed_at + 1}: {found}"


def replay(fitted: Calibration, frames: int = 1000, change: int = 500, seed: int = 0) -> DriftStream:
    """The alarm on scores drawn from the calibration's own, which rise by one standard deviation at `change`.

    This is an illustration for a bundle without a line: draws with replacement from n scores are not new frames.
    """
    rng = np.random.default_rng(seed)
    alarm = Drift(replace(fitted, frames=None), seed=seed)
    scores = rng.choice(fitted.scores, frames) + np.where(np.arange(frames) < change, 0.0, fitted.scores.std())
    reports = tuple(alarm.observe(float(score)) for score in scores)
    return DriftStream(reports, change, "calibration scores drawn again, 1 s.d. higher")


def write_plots(bundle: Bundle, folder: Path) -> list[Path]:
    """PNG files of each artefact's calibration in `folder`: levels, reliability, drift. ExportError, BundleError."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for artefact in bundle.manifest.artefacts:
            fitted = bundle.calibration(artefact)
            figures = {"levels": levels(fitted), "reliability": reliability(fitted)}
            if fitted.n >= 30:  # the fewest that Drift accepts
                figures["drift"] = martingale(replay(fitted))
            written += [_png(figure, folder / f"{artefact.engine}-{name}.png") for name, figure in figures.items()]
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error.strerror or error}): choose another --plots") from error
    return written


def _png(figure: Figure, path: Path) -> Path:
    _hide_spines(figure.axes)
    aside = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(aside, format="png", dpi=160, facecolor="white")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def _hide_spines(all_axes: Sequence[Axes]) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
