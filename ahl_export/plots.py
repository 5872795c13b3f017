"""Plots of the report, as SVG text."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

_BLUE, _ORANGE, _INK = "#3b6ea5", "#d9822b", "#555555"
# Text stays text, drawn in the page's own font; ids do not change from run to run.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "ahl", "font.family": "sans-serif", "font.size": 10}


def roc(labels: Sequence[int], scores: Sequence[float]) -> str:
    """False-reject rate against detection rate."""
    false_positive, true_positive, _ = roc_curve(labels, scores)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
        axes.plot(false_positive, true_positive, color=_ORANGE, linewidth=2)
        axes.set(xlabel="normals rejected", ylabel="anomalies rejected", xlim=(0, 1), ylim=(0, 1.01))
        axes.set_title(f"AUROC {roc_auc_score(labels, scores):.3f}", fontsize=11)
        return _svg(figure)


def histogram(normal: Sequence[float], anomalous: Sequence[float], threshold: float, unsure: float) -> str:
    """Scores of both groups, each as a share of its group, with the two levels. Far scores share the last bin."""
    far = float(np.quantile(np.concatenate([normal, anomalous]), 0.98))
    bins = np.linspace(min(*normal, *anomalous), max(far, threshold * 1.05), 50)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for scores, colour, hatch, label in (
            (normal, _BLUE, "", "normal"),
            (anomalous, _ORANGE, "//", "anomalous"),
        ):
            clipped = np.clip(scores, bins[0], bins[-1])
            axes.hist(
                clipped, bins, weights=np.full(len(scores), 1 / len(scores)), color=colour, alpha=0.6,
                hatch=hatch, edgecolor="white", linewidth=0.3, label=f"{label} ({len(scores)})",
            )  # fmt: skip
        top = axes.get_ylim()[1]
        for value, name, style in ((unsure, "unsure", "--"), (threshold, "reject", "-")):
            axes.axvline(value, color=_INK, linestyle=style, linewidth=1.4)
            axes.annotate(
                f"{name} \u2192",
                (value, top * 0.97),
                (4, 0),
                textcoords="offset points",
                color=_INK,
                fontsize=9,
                va="top",
            )
        axes.set(xlabel="score", ylabel="share of the group")
        axes.legend(frameon=False, loc="center right")
        return _svg(figure)


def _svg(figure: Figure) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
