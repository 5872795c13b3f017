"""Plots of the report, as SVG text with the colours of the page, so that they suit light, dark and paper."""

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_Numbers = NDArray[np.float64]

# Each colour becomes a variable of the page's style sheet.
CARD, INK, SOFT, NORMAL, DEFECT = "#fefefe", "#1d2329", "#5b6570", "#3b6ea5", "#c9661a"
_VARIABLES = {CARD: "card", INK: "ink", SOFT: "soft", NORMAL: "normal", DEFECT: "defect"}
# Text stays text, in the page's own font; ids are equal in every run.
STYLE: "dict[RcKeyType, Any]" = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ahl",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "hatch.linewidth": 0.7,
}


def roc(labels: Sequence[int], scores: Sequence[float], levels: tuple[float, float]) -> str:
    """Share of normals above a level against share of anomalies above it; `levels` (unsure, reject) are marked."""
    false_positive, true_positive, _ = roc_curve(labels, scores)
    group, values = np.asarray(labels, bool), np.asarray(scores)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.7), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
        axes.plot(false_positive, true_positive, color=DEFECT, linewidth=2)
        for level, name, marker in zip(levels, ("unsure", "reject"), ("^", "X"), strict=True):
            if not math.isfinite(level):
                continue
            point = (float((values[~group] > level).mean()), float((values[group] > level).mean()))
            axes.plot(*point, marker, color=INK, markeredgecolor=CARD, markersize=9, zorder=3, clip_on=False)
            note(axes, f"{name} level", point, (11, -5), "left")
        axes.set(xlabel="share of normals above the level", ylabel="share of defects above the level")
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        return svg(figure, "roc")


def histogram(normal: ArrayLike, anomalous: ArrayLike, calibration: ArrayLike, levels: tuple[float, float]) -> str:
    """Scores of the test groups and of the calibration normals, each as a share of its group, with both levels.

    Scores far above all others share the last bin.
    """
    bins = _bins(np.concatenate([np.ravel(s) for s in (normal, anomalous, calibration)]), levels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.7), layout="constrained")
        axes = figure.subplots()
        _bars(axes, normal, bins, "normal", color=NORMAL, alpha=0.6)
        _bars(axes, anomalous, bins, "defect", facecolor="none", edgecolor=DEFECT, hatch="////", histtype="stepfilled")
        _bars(axes, calibration, bins, "calibration", color=INK, histtype="step", linewidth=1.1)
        _draw_levels(axes, levels, bins)
        axes.set(xlabel="score", ylabel="share of the group", xlim=(bins[0], bins[-1]))
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=3)
        return svg(figure, "histogram")


def _bins(scores: _Numbers, levels: tuple[float, float]) -> _Numbers:
    """Edges from the lowest score to the 98% quantile or just past the highest level, whichever is higher."""
    low = float(min(scores.min(), *levels))
    top = max([float(np.quantile(scores, 0.98)), *(x for x in levels if math.isfinite(x))])
    return np.linspace(low, max(top + 0.08 * (top - low), low + 1e-6), 50)


def _bars(axes: Axes, scores: ArrayLike, bins: _Numbers, name: str, **style: Any) -> None:
    values = np.clip(np.ravel(scores), bins[0], bins[-1])
    weights = np.full(len(values), 1 / max(len(values), 1))
    axes.hist(values, bins.tolist(), weights=weights, label=f"{name} ({len(values)})", **style)


def _draw_levels(axes: Axes, levels: tuple[float, float], bins: _Numbers) -> None:
    """A labelled line for each finite level. The labels are above the bars, one above the other."""
    top = axes.get_ylim()[1]
    axes.set_ylim(0, 1.26 * top)
    for level, name, style, height in zip(
        levels, ("unsure above", "reject above"), ("--", "-"), (1.07, 1.18), strict=True
    ):
        if math.isfinite(level):
            axes.plot([level, level], [0, height * top], color=INK, linestyle=style, linewidth=1.4)
            right = level < 0.35 * bins[0] + 0.65 * bins[-1]
            text = f"{name} {level:.4g}"
            note(axes, text, (level, height * top), (5 if right else -5, -9), "left" if right else "right")


def note(axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], side: str) -> None:
    ground = {"facecolor": CARD, "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
    axes.annotate(text, at, shift, textcoords="offset points", ha=side, fontsize=9, bbox=ground, zorder=4)


def svg(figure: Figure, name: str) -> str:
    """The figure as SVG: no metadata, ids that begin with `name`, colours as variables of the page."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text[text.index("<svg") :])
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    return text
