"""Figures of one evaluation: how far probabilities can be believed, and what a model withstands."""

from collections.abc import Mapping, Sequence

import numpy as np

from digitlab.plots.style import Figure, line_styles, set_title, styled


@styled
def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int, title: str) -> Figure:
    """Draw accuracy against confidence in so many bins, and how many images each has; both arrays are (N,)."""
    fig = Figure(figsize=(4.6, 5), layout="constrained")
    set_title(fig, title)
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    filled = counts > 0
    means, shares = (np.bincount(places, each, bins)[filled] / counts[filled] for each in (confidence, correct))
    upper.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="as sure as right")
    upper.plot(means, shares, marker="o", color="#0072B2", label="this model")
    upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
    upper.grid()
    upper.legend(loc="upper left")
    lower.bar(edges[:-1], counts, width=1 / bins, align="edge", color="#56B4E9")
    lower.set(xlabel="probability of the predicted class", ylabel="images", yscale="symlog")
    return fig


@styled
def robustness(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], strengths: Sequence[int], clean: float, title: str
) -> Figure:
    """Draw accuracy with its 95 % interval against strength: `curves` are, by kind, (accuracy, low, high) of each."""
    fig = Figure(figsize=(8, 4.6), layout="constrained")
    set_title(fig, title)
    styles = line_styles(list(curves))
    for ax, (kind, points) in zip(fig.subplots(2, 3, sharex=True, sharey=True).flat, curves.items(), strict=False):
        accuracy, low, high = np.array(points).T
        ax.axhline(clean, color="0.6", linestyle="--", linewidth=1)
        ax.fill_between(strengths, low, high, color=styles[kind]["color"], alpha=0.25)
        ax.plot(strengths, accuracy, **styles[kind])
        ax.set(title=kind, ylim=(0, 1.02), xticks=strengths)
        ax.grid()
    fig.supxlabel("strength (dashed: uncorrupted)")
    fig.supylabel("accuracy")
    return fig
